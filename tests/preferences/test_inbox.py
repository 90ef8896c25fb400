"""The inbox: complete files become batches once, half-copied ones are left alone, versions wait."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignment.config.load import check_program
from alignment.errors import DataError
from alignment.pipeline.readiness import WaitingForBatches, available, frontier, waits_for
from alignment.preferences.inbox import Settling, ingest_inbox, waiting_comparisons
from alignment.preferences.store import PreferenceStore


def rows(count: int, tag: str, domain: str = "helpfulness") -> str:
    """Comparisons in the native schema."""
    return "".join(
        json.dumps(
            {
                "conversation": [{"role": "user", "content": f"{tag} question {number}"}],
                "chosen": f"good {tag} {number}",
                "rejected": f"bad {tag} {number}",
                "strength": "better",
                "domain": domain,
            }
        )
        + "\n"
        for number in range(count)
    )


def stopwatch(*readings: float) -> Any:
    """The module `time` with these readings of the monotonic clock, for one module alone."""
    names = ("strftime", "gmtime", "sleep", "time")
    following = iter(readings)
    return SimpleNamespace(
        monotonic=lambda: next(following), **{name: getattr(time, name) for name in names}
    )


@pytest.fixture
def program(tmp_path: Path) -> Any:
    """Two versions that learn from what people deliver; ten comparisons begin one."""
    made = check_program(
        {
            "name": "waits",
            "workspace": str(tmp_path / "workspace"),
            "intake": {"source": "inbox"},
            "versions": [{"name": "rlhf-v1"}, {"name": "rlhf-v2"}],
            "orchestration": {"min_comparisons": 10, "settle_seconds": 0},
        }
    )
    (made.workspace / "inbox").mkdir(parents=True)
    return made


def outcomes(program: Any, seconds: float = 0.0) -> dict[str, str]:
    return {
        item.file: item.outcome for item in ingest_inbox(program.workspace, program.intake, seconds)
    }


def test_each_complete_file_is_a_batch_once(program: Any) -> None:
    inbox = program.workspace / "inbox"
    (inbox / "a.jsonl").write_text(rows(4, "a"))
    (inbox / "again.jsonl").write_text(rows(4, "a"))
    (inbox / "broken.jsonl").write_text("this is no row\n" * 5)
    (inbox / "half.jsonl.part").write_text(rows(2, "half"))
    (inbox / ".hidden.jsonl").write_text(rows(2, "hidden"))
    assert outcomes(program) == {
        "a.jsonl": "accepted",
        "again.jsonl": "known",
        "broken.jsonl": "refused",
    }
    assert outcomes(program) == {}, "what was looked at is not read again"
    (inbox / "broken.jsonl").write_text(rows(3, "mended"))
    (inbox / "half.jsonl.part").rename(inbox / "half.jsonl")
    assert outcomes(program) == {"broken.jsonl": "accepted", "half.jsonl": "accepted"}
    store = PreferenceStore(program.workspace / "preferences")
    assert waiting_comparisons(store) == 4 + 3 + 2


def test_a_file_that_is_being_written_is_left_alone(
    program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = program.workspace / "inbox"
    path = inbox / "slow.jsonl"
    with path.open("w") as file:
        file.write(rows(3, "slow"))
        file.flush()
        assert outcomes(program) == {}, "somebody has it open"
        assert not Settling().settled(path, 0)
    clock = stopwatch(0.0, 9.0, 10.0, 15.0, 20.0)
    monkeypatch.setattr("alignment.preferences.inbox.time", clock)
    settling = Settling()
    assert not settling.settled(path, 10), "the first look"
    assert not settling.settled(path, 10), "too early"
    assert settling.settled(path, 10)
    os.utime(path, (time.time() - 3600, time.time() - 3600))
    assert not settling.settled(path, 5), (
        "copying programs set times back; the inode's change counts"
    )
    assert settling.settled(path, 5)
    monkeypatch.undo()
    assert outcomes(program) == {"slow.jsonl": "accepted"}


def test_a_lost_journal_makes_no_batch_twice(program: Any) -> None:
    (program.workspace / "inbox" / "a.jsonl").write_text(rows(4, "a"))
    outcomes(program)
    (program.workspace / "preferences" / "inbox.json").unlink()
    assert outcomes(program) == {"a.jsonl": "known"}
    assert len(PreferenceStore(program.workspace / "preferences").batches()) == 1


def test_a_directory_that_is_named_must_be_there(program: Any) -> None:
    lost = program.intake.model_copy(update={"path": str(program.workspace / "nowhere")})
    with pytest.raises(DataError, match="no directory"):
        ingest_inbox(program.workspace, lost, 0)


def test_versions_wait_for_enough_comparisons(program: Any) -> None:
    waiting = waits_for(program, "rlhf-v1")
    assert isinstance(waiting, WaitingForBatches)
    assert (waiting.have, waiting.need) == (0, 10)
    assert {node.version for node in available(program)} == {"base", "sft"}
    inbox = program.workspace / "inbox"
    (inbox / "a.jsonl").write_text(rows(6, "a"))
    outcomes(program)
    assert "6 new comparisons are there (at least 10 needed)" in str(waits_for(program, "rlhf-v1"))
    (inbox / "b.jsonl").write_text(rows(4, "b"))
    outcomes(program)
    # Enough, but the safety model would have nothing to learn from, now and for ever.
    assert "none on safety" in str(waits_for(program, "rlhf-v1"))
    (inbox / "c.jsonl").write_text(rows(2, "c", domain="safety"))
    outcomes(program)
    assert waits_for(program, "rlhf-v1") is None
    # Version 1 will take everything: nobody can say yet that version 2 may begin.
    assert {node.version for node in available(program)} == {"base", "sft", "rlhf-v1"}
    store = PreferenceStore(program.workspace / "preferences")
    store.assign("rlhf-v1", [batch.id for batch in store.unassigned()])
    assert waits_for(program, "rlhf-v1") is None, "a version that has begun does not wait again"
    assert isinstance(waits_for(program, "rlhf-v2"), WaitingForBatches)
    assert frontier(program).version == "base"


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_wrong_clock_hides_no_file(
    program: Any, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    (program.workspace / "inbox" / "a.jsonl").write_text(rows(4, "a"))
    now = time.time() + hours * 3600
    monkeypatch.setattr(time, "time", lambda: now)
    assert outcomes(program, 0.05) == {"a.jsonl": "accepted"}


def test_files_that_are_not_settled_are_counted(
    program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = program.workspace / "inbox"
    for name in "ab":
        (inbox / f"{name}.jsonl").write_text(rows(2, name))
    assert "2 files of the inbox are not taken in yet" in str(waits_for(program, "rlhf-v1"))

    def still_copying(_seconds: float) -> None:
        with (inbox / "b.jsonl").open("a") as file:
            file.write(rows(3, "more"))

    clock = stopwatch(0, 0, 1, 1, 15, 15)
    clock.sleep = still_copying
    monkeypatch.setattr("alignment.preferences.inbox.time", clock)
    said: list[str] = []
    done = ingest_inbox(program.workspace, program.intake, 15, say=said.append)
    assert [item.file for item in done] == ["a.jsonl"]
    assert said[0].startswith("1 file is not settled yet (b.jsonl)")
    assert "1 file of the inbox is not taken in yet" in str(waits_for(program, "rlhf-v1"))
