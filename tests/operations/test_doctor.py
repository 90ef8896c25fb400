"""The doctor finds each kind of damage, mends it, and touches nothing that is sound."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alignment.config.load import check_program
from alignment.errors import LockedError
from alignment.execution.runner import Runner
from alignment.operations import doctor
from alignment.pipeline.ledger import Ledger
from alignment.utils.locks import workspace_lock


@pytest.fixture
def program(tmp_path: Path, stages: Any) -> Any:
    """A finished program of invented stages."""
    made = check_program(
        {
            "name": "ill",
            "workspace": str(tmp_path / "workspace"),
            "versions": [{"name": "rlhf-v1"}],
            "tracking": {"enabled": False},
        }
    )
    with Runner(made) as runner:
        for node in runner.plan:
            runner.run_node(node)
    return made


def examine(program: Any) -> list[doctor.Finding]:
    """All findings; nothing is mended."""
    pairs = list(doctor.examine(program))
    assert not any(mended for _, mended in pairs)
    return [finding for finding, _ in pairs]


def mend(program: Any) -> Iterator[tuple[doctor.Finding, bool]]:
    return doctor.examine(program, fix=True)


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_nothing_is_wrong_with_a_sound_workspace(program: Any) -> None:
    assert list(examine(program)) == []


def test_what_older_code_made_and_still_counts_is_named(program: Any) -> None:
    ledger = Ledger(program.workspace)
    manifest = ledger.current("rlhf-v1", "promote")
    assert manifest is not None
    path = ledger.committed_dir("rlhf-v1", "promote", manifest.fingerprint) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"code_version": "3"}))
    (found,) = examine(program)
    assert f"rlhf-v1/promote (code version 3, now {manifest.code_version})" in found.what
    assert found.harmless


def test_every_damage_is_found_and_mended(program: Any) -> None:
    ledger = Ledger(program.workspace)
    before = files(program.workspace)
    manifest = ledger.current("rlhf-v1", "sample")
    assert manifest is not None
    sampled = ledger.committed_dir("rlhf-v1", "sample", manifest.fingerprint)
    (sampled / "result.txt").write_text("changed")
    partial = ledger.stage_dir("sft", "finetune") / ".deadbeefdeadbeef.partial"
    (partial / "scratch").mkdir(parents=True)
    (partial / "scratch" / "step-000001").write_text("x")
    unsealed = ledger.stage_dir("sft", "evaluate") / "0123456789abcdef"
    unsealed.mkdir()
    (unsealed / "model").write_text("x")
    record = ledger.stage_dir("rlhf-v1", "select") / "attempts" / "001.json"
    values = json.loads(record.read_text())
    other = record.with_name("002.json")
    other.write_text(json.dumps(values | {"status": "running", "pid": 2**22 + 1, "number": 2}))
    (program.workspace / "lock").write_text('{"pid": 1}')

    found = list(examine(program))
    told = "\n".join(finding.what for finding in found)
    assert "rlhf-v1/sample: missing or changed since the stage wrote it: result.txt" in told
    assert "sft/finetune: unfinished work that no stage needs" in told
    assert "sft/evaluate: a directory without a manifest" in told
    assert "rlhf-v1/select attempt 2 is marked as running" in told
    assert "the process that held the workspace was killed" in told
    assert len(found) == 5

    assert all(finding.mend is not None for finding in found)
    mended = list(mend(program))
    assert {finding.what for finding, _ in mended} == {finding.what for finding in found}
    assert all(yes for _, yes in mended)
    assert not partial.exists()
    assert not unsealed.exists()
    assert json.loads(other.read_text())["status"] == "killed"
    aside = [path for path in files(program.workspace) if ".superseded-" in path]
    assert aside, "changed outputs are set aside, not deleted"
    # Nothing sound went: all files are there, those of the changed stage under another name.
    missing = before - files(program.workspace)
    assert missing == {path for path in before if str(Path("rlhf-v1/sample", sampled.name)) in path}
    left = list(examine(program))
    assert all(finding.harmless for finding in left)


def test_damage_is_mended_where_it_is_not_in_what_was_made_last(program: Any) -> None:
    ledger = Ledger(program.workspace)
    first = ledger.current("rlhf-v1", "promote")
    assert first is not None
    strict = program.model_copy(
        update={"promote": program.promote.model_copy(update={"margin": 1})}
    )
    with Runner(strict) as runner:
        for node in runner.plan:
            runner.run_node(node)
    other = ledger.current("rlhf-v1", "promote")
    assert other is not None
    assert other.attempt == 2
    damaged = ledger.committed_dir("rlhf-v1", "promote", first.fingerprint)
    (damaged / "result.txt").write_text("changed")
    (found,) = examine(program)
    assert found.mend is not None
    found.mend()
    assert not damaged.exists()
    assert ledger.find("rlhf-v1", "promote", other.fingerprint) == other


def test_nothing_is_mended_while_somebody_works(program: Any) -> None:
    ledger = Ledger(program.workspace)
    unsealed = ledger.stage_dir("sft", "evaluate") / "0123456789abcdef"
    unsealed.mkdir()
    with workspace_lock(program.workspace):
        found = list(mend(program))
        assert not any(yes for _, yes in found)
        assert "nothing was repaired: another process" in found[0][0].what
        assert f"pid {os.getpid()}" in found[0][0].what
        assert [item.where for item, _ in found[1:]] == [str(unsealed)]
        assert unsealed.exists()
    assert [(item.where, yes) for item, yes in mend(program)] == [(str(unsealed), True)]
    assert not unsealed.exists()


def test_the_workspace_is_held_while_it_is_mended(program: Any) -> None:
    unsealed = Ledger(program.workspace).stage_dir("sft", "evaluate") / "0123456789abcdef"
    unsealed.mkdir()
    for _ in mend(program):
        with pytest.raises(LockedError), workspace_lock(program.workspace):
            pass
    with workspace_lock(program.workspace):
        pass


def test_an_attempt_on_another_host_is_closed_where_nobody_works(program: Any) -> None:
    record = Ledger(program.workspace).stage_dir("sft", "evaluate") / "attempts" / "001.json"
    values = json.loads(record.read_text())
    lost = record.with_name("002.json")
    changed = {"status": "running", "host": "lost-container", "number": 2}
    lost.write_text(json.dumps(values | changed))
    with workspace_lock(program.workspace):
        assert list(examine(program)) == [], "it may be that one who works"
    ((found, mended),) = mend(program)
    assert f"process {os.getpid()} of lost-container is gone" in found.what
    assert mended
    assert json.loads(lost.read_text())["status"] == "killed"


def test_an_unfinished_stage_that_will_go_on_is_no_damage(
    program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(program.workspace)
    manifest = ledger.current("rlhf-v1", "promote")
    assert manifest is not None
    sealed = ledger.committed_dir("rlhf-v1", "promote", manifest.fingerprint)
    sealed.rename(sealed.with_name(f".{sealed.name}.partial"))
    found = [item for item in examine(program) if "rlhf-v1/promote" in item.what]
    assert len(found) == 1
    assert found[0].harmless
    assert found[0].mend is None


def test_a_full_disk_is_told_with_figures(program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr(
        "alignment.pipeline.disk_space.shutil.disk_usage",
        lambda _path: SimpleNamespace(free=7 * 2**20),
    )
    assert not [item for item in examine(program) if "disk" in item.what]  # nothing left to do
    ledger = Ledger(program.workspace)
    manifest = ledger.current("rlhf-v1", "finetune")
    assert manifest is not None
    ledger.supersede("rlhf-v1", "finetune", manifest.fingerprint)
    found = [item for item in examine(program) if "disk" in item.what]
    assert len(found) == 1
    assert "7 MiB are free" in found[0].what


@pytest.mark.parametrize("name", ["withdrawals/0001.json", "assignments/sft.json", "inbox.json"])
def test_a_damaged_record_of_the_preferences_is_named(program: Any, name: str) -> None:
    path = program.workspace / "preferences" / name
    path.parent.mkdir(parents=True)
    path.write_text("{")
    (found,) = examine(program)
    assert found.where == str(path)
    assert found.remedy
