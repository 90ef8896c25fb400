"""Records of other releases: newer ones are refused by name, unknown fields are passed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import AlignError
from alignment.pipeline.format import FORMAT, read_record
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.migrate import todays_program
from alignment.pipeline.records import Attempt, Manifest
from alignment.pipeline.workspace import keep_program, kept_program


def rewrite(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_newer_program_names_the_release_that_wrote_it(make_program: Any) -> None:
    program = make_program()
    program.workspace.mkdir()
    keep_program(program)
    path = program.workspace / "program.json"
    assert read_record(path)["format"] == FORMAT
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


def test_only_the_format_of_0_1_is_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later format is no reason to take what this one wrote for 0.1's."""
    monkeypatch.setattr("alignment.pipeline.format.FORMAT", FORMAT + 1)
    values = {"promote": {"parent": "latest"}, "evaluate": {"level": 0.9}}
    assert todays_program({**values, "format": FORMAT}) == (values, [])
    assert todays_program({**values, "format": 1}) == (
        {"promote": {"parent": "previous"}, "evaluate": {}},
        ["evaluate.level: 0.9 (now always 0.95)"],
    )


def test_a_setting_of_0_1_that_is_gone_is_told(
    make_program: Any, caplog: pytest.LogCaptureFixture
) -> None:
    program = make_program()
    program.workspace.mkdir()
    keep_program(program)
    path = program.workspace / "program.json"
    values = json.loads(path.read_text())
    values["tracking"]["artifact_mb"] = 9.0
    del values["format"]
    path.write_text(json.dumps(values))
    assert kept_program(program.workspace) == program
    assert "tracking.artifact_mb: 9.0 (now always 4.0)" in caplog.text
