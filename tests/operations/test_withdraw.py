"""A batch is taken back: what was trained on it is stale, says why, and is made again without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from deliveries_of_people import (
    RealIntake,
    deliver,
    inbox_program,
    rows,
    run_what_can_be_done,
    store_of,
    taken,
)

from alignment.errors import AlignError, DataError
from alignment.operations.lineage import lineage
from alignment.operations.status import done_stages, program_status
from alignment.operations.withdraw import block, restore, unblock, withdraw
from alignment.pipeline.readiness import WaitingForBatches, frontier, waits_for
from alignment.preferences.inbox import ingest_inbox, waiting_comparisons
from alignment.preferences.intake import WithdrawnError
from alignment.utils.json_lines import json_line

pytestmark = pytest.mark.usefixtures("real_intake")


@pytest.fixture
def done(tmp_path: Path, stages: Any) -> Any:
    """Two finished versions: the first learned from `a` and `b`, the second from `c`."""
    program = inbox_program(tmp_path / "workspace")
    deliver(program, "a", rows("a"))
    deliver(program, "b", rows("b"))
    run_what_can_be_done(program)
    deliver(program, "c", rows("c"))
    run_what_can_be_done(program)
    assert (taken(program, "rlhf-v1"), taken(program, "rlhf-v2")) == (["a", "b"], ["c"])
    assert frontier(program).version is None
    stages.ran.clear()
    return program


def stale(program: Any) -> dict[str, str]:
    """`version/stage` → why, of all stages that are not done."""
    return {
        f"{version.name}/{stage.stage}": stage.why or ""
        for version in program_status(program).versions
        for stage in version.stages
        if stage.state != "done"
    }


def test_what_was_trained_on_it_is_stale_and_is_made_again_without(done: Any, stages: Any) -> None:
    change = withdraw(done, "2", reason="labels swapped", by="ana")
    assert change.event.versions == ("rlhf-v1",)
    why = stale(done)
    assert {key.partition("/")[0] for key in why} == {"rlhf-v1", "rlhf-v2"}
    assert {"rlhf-v1/intake", "rlhf-v1/reward_safety", "rlhf-v2/ppo"} <= why.keys() | {
        "rlhf-v2/ppo"
    }
    assert set(change.stale) == set(why)
    words = "was withdrawn by ana on "
    assert all(words in reason and ": labels swapped" in reason for reason in why.values()), why
    assert why["rlhf-v1/reward_safety"].endswith(": labels swapped"), "not every input as well"
    origin = lineage(done, "rlhf-v2")
    assert origin.stale is not None
    assert words in origin.stale
    assert [words in sentence for sentence in origin.withdrawn] == [True]
    run_what_can_be_done(done)
    assert stale(done) == {}
    assert taken(done, "rlhf-v1") == ["a"]
    assert taken(done, "rlhf-v2") == ["c"]
    assert {"rlhf-v1/reward_safety", "rlhf-v2/reward_safety"} <= set(stages.ran)
    assert not [key for key in stages.ran if key.startswith(("base/", "sft/"))]
    assert lineage(done, "rlhf-v2").withdrawn == []


def test_what_is_there_can_still_be_shown(done: Any) -> None:
    before = done_stages(done)
    withdraw(done, "1", reason="")
    assert done_stages(done, any_code=True) == before
    assert done_stages(done).keys() == {"base", "sft"}


def test_restored_it_counts_again_and_nothing_is_trained_twice(done: Any, stages: Any) -> None:
    before = done_stages(done)
    withdraw(done, "2", reason="labels swapped")
    run_what_can_be_done(done)
    stages.ran.clear()
    restore(done, "2", reason="they were not", by="ben")
    assert "was restored by ben" in stale(done)["rlhf-v1/intake"]
    run_what_can_be_done(done)
    assert stages.ran == ["rlhf-v1/intake"]
    assert taken(done, "rlhf-v1") == ["a", "b"]
    assert without_intakes(done_stages(done)) == without_intakes(before)


def without_intakes(stages: dict[str, dict[str, Path]]) -> dict[str, dict[str, Path]]:
    return {
        version: {name: path for name, path in found.items() if name != "intake"}
        for version, found in stages.items()
    }


def test_twice_is_an_error_and_so_is_what_is_not_there(done: Any) -> None:
    withdraw(done, "2", reason="labels swapped", by="ana")
    with pytest.raises(AlignError, match=r"was withdrawn by ana on .*: labels swapped"):
        withdraw(done, "2", reason="again")
    with pytest.raises(AlignError, match="is not withdrawn"):
        restore(done, "1")
    with pytest.raises(DataError, match="no batch '9'"):
        withdraw(done, "9", reason="")


def test_the_only_batch_of_the_newest_version_is_replaced_by_what_comes(
    tmp_path: Path, stages: Any
) -> None:
    """A program that is stuck on a batch gets going again."""
    program = inbox_program(tmp_path / "workspace", versions=1)
    deliver(program, "poison", rows("poison"))
    stages.before = lambda context: poisoned(program, context)
    with pytest.raises(AlignError, match="the template refuses"):
        run_what_can_be_done(program)
    withdraw(program, "1", reason="a system turn")
    waiting = waits_for(program, "rlhf-v1")
    assert isinstance(waiting, WaitingForBatches)
    assert (waiting.have, waiting.need) == (0, 8)
    assert "was withdrawn by" in waiting.message
    assert "align batches restore" in (waiting.remedy or "")
    deliver(program, "mended", rows("poison", strength="slightly"))
    run_what_can_be_done(program)
    assert taken(program, "rlhf-v1") == ["mended"]
    assert stale(program) == {}


def poisoned(program: Any, context: Any) -> None:
    if context.stage == "reward_safety" and "poison" in taken(program, context.version):
        raise AlignError("the template refuses a conversation")


def test_a_version_in_the_middle_goes_on_without_its_own(tmp_path: Path) -> None:
    program = inbox_program(tmp_path / "workspace", versions=3)
    for name in "abc":
        deliver(program, name, rows(name))
        run_what_can_be_done(program)
    withdraw(program, "2", reason="a bad week")
    run_what_can_be_done(program)
    assert [taken(program, f"rlhf-v{number}") for number in (1, 2, 3)] == [["a"], [], ["c"]]
    assert stale(program) == {}
    # Nothing is left to learn from: the first version takes in what comes next.
    withdraw(program, "1", reason="another")
    waiting = waits_for(program, "rlhf-v1")
    assert waiting is not None
    assert "none on helpfulness and safety" in waiting.message
    deliver(program, "d", rows("d", 2))
    run_what_can_be_done(program)
    assert [taken(program, f"rlhf-v{number}") for number in (1, 2, 3)] == [["d"], [], ["c"]]
    # Once more the same: what came in place of it stays.
    restore(program, "1")
    run_what_can_be_done(program)
    assert taken(program, "rlhf-v1") == ["a", "d"]


def test_it_counts_for_no_version_that_begins(tmp_path: Path) -> None:
    program = inbox_program(tmp_path / "workspace", need=15)
    deliver(program, "a", rows("a"))
    deliver(program, "b", rows("b"))
    store = store_of(program)
    assert waiting_comparisons(store) == 20
    assert waits_for(program, "rlhf-v1") is None
    change = withdraw(program, "1", reason="")
    assert (change.event.versions, change.stale) == ((), [])
    assert waiting_comparisons(store) == 10
    assert "10 new comparisons are there (at least 15 needed)" in str(waits_for(program, "rlhf-v1"))
    assert [batch.sequence for batch in store.unassigned()] == [2]


def test_the_same_delivery_stays_out_and_a_mended_one_comes_in(tmp_path: Path) -> None:
    program = inbox_program(tmp_path / "workspace")
    deliver(program, "a", rows("a"))
    withdraw(program, "1", reason="labels swapped", by="ana")
    with pytest.raises(WithdrawnError, match="was withdrawn by ana") as error:
        deliver(program, "again", rows("a"))
    assert "align batches restore 1" in (error.value.remedy or "")
    (program.workspace / "inbox").mkdir()
    path = program.workspace / "inbox" / "again.jsonl"
    path.write_bytes((tmp_path / "a.jsonl").read_bytes())
    (refused,) = ingest_inbox(program.workspace, program.intake, 0)
    assert refused.outcome == "refused"
    assert "labels swapped" in (refused.error or "")
    # The same comparisons the other way round are no contradiction of what counts no longer.
    swapped = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows("a")]
    assert deliver(program, "mended", swapped).values["rows"]["accepted"] == 10
    restore(program, "1")
    assert deliver(program, "a", rows("a")).already
    # The file of the inbox that was refused is read again: it is known now.
    (known,) = ingest_inbox(program.workspace, program.intake, 0)
    assert known.outcome == "known"
    assert ingest_inbox(program.workspace, program.intake, 0) == []


def test_what_was_refused_as_known_is_taken_in_once_that_is_withdrawn(tmp_path: Path) -> None:
    program = inbox_program(tmp_path / "workspace")
    deliver(program, "a", rows("a"))
    (program.workspace / "inbox").mkdir()
    path = program.workspace / "inbox" / "the same again.jsonl"
    path.write_text(json_line(rows("a")[1]) + json_line(rows("a")[0]))
    (refused,) = ingest_inbox(program.workspace, program.intake, 0)
    assert "nothing new" in (refused.error or "")
    assert ingest_inbox(program.workspace, program.intake, 0) == []
    withdraw(program, "1", reason="")
    assert "1 file of the inbox is not taken in yet" in str(waits_for(program, "rlhf-v1"))
    (accepted,) = ingest_inbox(program.workspace, program.intake, 0)
    assert (accepted.outcome, accepted.comparisons) == ("accepted", 2)


def test_what_changes_while_an_intake_runs_is_in_its_fingerprint(
    tmp_path: Path, stages: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = inbox_program(tmp_path / "workspace", versions=1)
    deliver(program, "a", rows("a", annotator="ana"))
    deliver(program, "b", rows("b", annotator="ben"))
    said = iter(["ben"])

    def meanwhile(context: Any) -> None:
        for name in said if context.stage == "intake" else ():
            block(program, name, reason="")

    monkeypatch.setattr(
        "alignment.execution.runner.importlib", RealIntake(stages, before=meanwhile)
    )
    run_what_can_be_done(program)
    assert stages.ran.count("rlhf-v1/intake") == 2
    assert stale(program) == {}
    assert learned(program, "rlhf-v1") == 10
    unblock(program, "ben")
    run_what_can_be_done(program)
    assert learned(program, "rlhf-v1") == 20


def learned(program: Any, version: str) -> int:
    """Number of comparisons in a version's batch.json."""
    path = done_stages(program)[version]["intake"] / "batch.json"
    batches = json.loads(path.read_text())["batches"]
    return sum(sum(side.values()) for batch in batches for side in batch["counts"].values())
