"""Records of other releases: newer ones are refused by name, unknown fields are passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import AlignError
from alignment.pipeline.format import FORMAT, format_of
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.records import Attempt, Manifest
from alignment.pipeline.workspace import keep_program, kept_program


def rewrite(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_newer_program_names_the_release_that_wrote_it(make_program: Any) -> None:
    program = make_program()
    program.workspace.mkdir()
    keep_program(program)
    path = program.workspace / "program.json"
    assert format_of(path) == FORMAT
    assert kept_program(program.workspace) == program
    rewrite(path, format=FORMAT + 1, written_by="9.9")
    with pytest.raises(AlignError, match=r"align 9\.9 wrote this in format"):
        kept_program(program.workspace)


def test_fields_of_a_later_writer_are_passed_over(make_program: Any, stages: Any) -> None:
    from fake_program import run_all

    program = make_program(versions=1, tracking={"enabled": False})
    run_all(program)
    ledger = Ledger(program.workspace)
    home = ledger.stage_dir("rlhf-v1", "sample")
    manifest = ledger.current("rlhf-v1", "sample")
    assert manifest is not None
    assert manifest.format == FORMAT
    rewrite(home / "attempts" / "001.json", weather="fine")
    directory = ledger.committed_dir("rlhf-v1", "sample", manifest.fingerprint)
    rewrite(directory / "manifest.json", weather="fine")
    assert Attempt.read(home / "attempts" / "001.json").status == "done"
    assert Manifest.read(directory) == manifest
    rewrite(directory / "manifest.json", format=FORMAT + 1, written_by="9.9")
    with pytest.raises(AlignError, match=r"align 9\.9 wrote this"):
        ledger.current("rlhf-v1", "sample")
