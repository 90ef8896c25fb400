"""The series goes on after its last version, and says how."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from deliveries_of_people import (
    RealIntake,
    deliver,
    inbox_program,
    rows,
    run_what_can_be_done,
    taken,
)

from alignment.operations.status import program_status
from alignment.operations.whats_next import whats_next
from alignment.pipeline.readiness import after_the_last, next_version
from alignment.preferences.inbox import ingest_inbox
from alignment.utils.json_lines import json_line


@pytest.mark.parametrize("source", ["simulated", "inbox"])
def test_an_added_version_repeats_nothing(
    source: str, tmp_path: Path, stages: Any, monkeypatch: pytest.MonkeyPatch, make_program: Any
) -> None:
    if source == "inbox":
        monkeypatch.setattr("alignment.execution.runner.importlib", RealIntake(stages))

    def program(versions: int) -> Any:
        if source == "inbox":
            return inbox_program(tmp_path / "workspace", versions=versions)
        return make_program(versions=2, tracking={"enabled": False}) if versions == 2 else longer()

    def longer() -> Any:
        two = program(2)
        third = two.versions[0].model_copy(update={"name": "rlhf-v3"})
        return two.model_copy(update={"versions": (*two.versions, third)})

    for name in "ab":
        if source == "inbox":
            deliver(program(2), name, rows(name))
        run_what_can_be_done(program(2))
    stages.ran.clear()
    if source == "inbox":
        deliver(program(2), "c", rows("c"))
        assert next_version(program(2)) is None
        (line,) = program_status(program(2)).next
        assert line == after_the_last(program(2))
        assert line.startswith("10 comparisons wait (8 make a version)")
        assert "`- name: rlhf-v3`" in line
    run_what_can_be_done(program(2))
    assert stages.ran == []
    run_what_can_be_done(program(3))
    assert {key.partition("/")[0] for key in stages.ran} == {"rlhf-v3"}
    assert program_status(program(3)).done
    assert program_status(program(3)).next == []
    if source == "inbox":
        assert taken(program(3), "rlhf-v3") == ["c"]


def test_status_tells_of_refused_files_as_long_as_they_lie_there(tmp_path: Path) -> None:
    program = inbox_program(tmp_path / "workspace")
    inbox = program.workspace / "inbox"
    inbox.mkdir(parents=True)
    sound = {"prompt": "a", "chosen": "b", "rejected": "c", "domain": "safety"}
    (inbox / "broken.jsonl").write_text(json_line(sound) + "no row\n" * 3)
    ingest_inbox(program.workspace, program.intake, 0)
    (line,) = whats_next(program)
    assert line.startswith("broken.jsonl in the inbox was refused: ")
    assert f"where:  {program.workspace}/preferences/refused/" in line
    assert "remedy: " in line
    # A copy names its own files.
    copy = tmp_path / "copy"
    shutil.copytree(program.workspace, copy)
    (told,) = whats_next(program.model_copy(update={"workspace": copy}))
    assert f"where:  {copy}/preferences/refused/" in told
    assert str(program.workspace) not in told
    (inbox / "broken.jsonl").unlink()
    assert whats_next(program) == []
