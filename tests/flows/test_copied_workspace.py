"""A copy of a workspace has its Prefect database as well: what was planned in the original is not
done there by whoever serves the copy."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_program import fake_program

from alignment.errors import AlignError
from alignment.pipeline.workspace import keep_program
from alignment.utils.files import atomic_write_json
from flows.definitions import parameters
from flows.servers.prefect_environment import client_environment, home
from flows.servers.prefect_server import find_server
from flows.serving import state_file


def test_align_down_in_the_copy_stops_nothing_of_the_original(tmp_path: Path) -> None:
    """The copy has the note of who serves the original, too."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        home(original).mkdir(parents=True)
        state_file.write_record(original, "m", "p", {"the MLflow server": server.pid}, 1.0)
        described = {"url": "http://127.0.0.1:9", "pid": server.pid, "workspace": str(original)}
        atomic_write_json(home(original) / "server.json", described)
        shutil.copytree(original, copy)
        assert state_file.record(copy) is None
        assert state_file.down(copy) == []
        assert find_server(copy, print) is None
        assert server.poll() is None
        assert state_file.record(original) is not None
        note = state_file.record(original)
        assert note is not None
        note["process"] = None  # this process, which a test must not end
        atomic_write_json(home(original) / state_file.RECORD, note)
        assert len(state_file.down(original)) == 1
        assert server.poll() is not None
    finally:
        server.kill()
        server.wait()


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
