"""A copy of a workspace has its Prefect database as well: what was planned in the original is not
done there by whoever serves the copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fake_program import fake_program

from alignment.errors import AlignError
from alignment.pipeline.workspace import keep_program
from flows.definitions import parameters
from flows.servers.prefect_environment import client_environment


def test_a_run_of_the_original_is_not_carried_out_by_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    keep_program(fake_program(original))
    shutil.copytree(original, copy)
    monkeypatch.setenv("PREFECT_HOME", client_environment(copy)["PREFECT_HOME"])
    monkeypatch.setattr(parameters, "deployed", lambda: True)
    assert parameters.read_program(str(copy)).workspace == copy
    with pytest.raises(AlignError, match=f"belongs to the workspace {original}"):
        parameters.read_program(str(original))
    # A worker of the user's own, for any workspace.
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / ".prefect"))
    assert parameters.read_program(str(original)).workspace == original
