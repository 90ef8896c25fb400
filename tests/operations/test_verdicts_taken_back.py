"""Verdicts that are corrected, withdrawn one by one, or of annotators who are blocked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from deliveries_of_people import (
    deliver,
    inbox_program,
    rows,
    run_what_can_be_done,
    store_of,
)

from alignment.errors import AlignError, DataError
from alignment.operations.status import done_stages, program_status
from alignment.operations.withdraw import block, restore, unblock, unnamed_votes, withdraw
from alignment.pipeline.readiness import waits_for
from alignment.preferences.exports import judged_ids
from alignment.preferences.inbox import waiting_comparisons
from alignment.preferences.intake import NothingNewError, ingest
from alignment.preferences.what_counts import EXCLUDED, excluded_rows, in_words
from alignment.stages import reward

pytestmark = pytest.mark.usefixtures("real_intake")


@pytest.fixture
def done(tmp_path: Path, stages: Any) -> Any:
    """A finished version that learned from ten comparisons of ana and ten of ben."""
    program = inbox_program(tmp_path / "workspace", versions=1)
    deliver(program, "ana", rows("a", annotator="ana"))
    deliver(program, "ben", rows("b", annotator="ben"))
    run_what_can_be_done(program)
    stages.ran.clear()
    return program


def turned(row: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The opposite verdict."""
    return row | {"chosen": row["rejected"], "rejected": row["chosen"]} | fields


def why(program: Any) -> str:
    """Why the safety reward model of the first version would be trained again."""
    (version,) = (v for v in program_status(program).versions if v.name == "rlhf-v1")
    (stage,) = (stage for stage in version.stages if stage.stage == "reward_safety")
    return (stage.why or "") if stage.state == "stale" else stage.state


def chosen(program: Any) -> dict[str, list[str]]:
    """First turn → chosen answers that a reward model of the first version reads."""
    ctx = SimpleNamespace(
        workspace=program.workspace,
        inputs_of=lambda _: {"rlhf-v1": done_stages(program)["rlhf-v1"]["intake"]},
    )
    training, heldout, *_ = reward._comparisons(ctx)  # type: ignore[arg-type]
    read: dict[str, list[str]] = {}
    for source in (*training, *heldout):
        turn = source.comparison.conversation[0]["content"]
        read.setdefault(turn, []).append(source.comparison.chosen)
    return read


def test_a_verdict_that_does_not_say_that_it_corrects_is_reported(done: Any) -> None:
    lines = [turned(rows("a")[0], annotator="ana"), *rows("new", 1)]
    report = deliver(done, "c", lines)
    assert report.values["reasons"] == {"conflict_earlier": 1}
    assert report.values["rows"]["accepted"] == 1
    quarantined = json.loads((report.directory / "quarantine.jsonl").read_text())
    assert "stands in 0001-" in quarantined["message"]
    assert why(done) == "done"
    assert excluded_rows(store_of(done)) == {}


@pytest.mark.parametrize("who", ["ana", None])
def test_one_that_says_so_takes_the_place(done: Any, who: str | None) -> None:
    first = rows("a")[1]
    assert chosen(done)["a question 1"] == ["good a 1"]
    before = sum(map(len, chosen(done).values()))
    report = deliver(done, "c", [turned(first, annotator=who, corrects=True)])
    assert report.values["corrections"] == 1
    assert report.values["rows"]["accepted"] == 1
    assert f"1 comparison does not count: judged again in batch 0003-{report.id}" in why(done)
    assert waiting_comparisons(store_of(done)) == 1
    run_what_can_be_done(done)
    intake = done_stages(done)["rlhf-v1"]["intake"]
    id = store_of(done).batch("1").id
    assert json.loads((intake / EXCLUDED).read_text()) == {id: [1]}
    (taken, _) = json.loads((intake / "batch.json").read_text())["batches"]
    assert sum(sum(side.values()) for side in taken["counts"].values()) == 9
    assert "a question 1" not in chosen(done)
    assert sum(map(len, chosen(done).values())) == before - 1
    assert why(done) == "done"
    # The correction is taken back: the first verdict stands again, and nothing is trained twice.
    withdraw(done, "3", reason="by mistake")
    assert excluded_rows(store_of(done)) == {}
    run_what_can_be_done(done)
    assert chosen(done)["a question 1"] == ["good a 1"]
    assert why(done) == "done"


def test_nobody_corrects_another_persons_verdict_without_naming_it(done: Any) -> None:
    first = rows("a")[0]
    store = store_of(done)
    ids = [store.batch("1").id]
    (own,) = [c.id for c in store.training(ids) + store.heldout(ids) if c.chosen == "good a 0"]
    beside = [turned(first, annotator="ben", corrects=True), *rows("new", 3)]
    report = deliver(done, "c", beside).values
    assert (report["reasons"], report["beside"]) == ({}, {"agree": 0, "differ": 1})
    assert excluded_rows(store) == {}, "both count"
    wrong = [turned(first, annotator="ben", corrects="0" * 16), *rows("more", 9)]
    assert deliver(done, "d", wrong).values["reasons"] == {"unknown_correction": 1}
    right = [turned(first, annotator="ben", corrects=own)]
    assert deliver(done, "e", right).values["corrections"] == 1
    assert excluded_rows(store).keys() == {*ids, store.batch("3").id}, "on the pair it stands alone"


def test_another_strength_is_a_correction_too(done: Any) -> None:
    first = rows("a")[0] | {"annotator": "ana", "strength": "slightly"}
    report = deliver(done, "c", [first, *rows("new", 1)])
    assert report.values["reasons"] == {"differs_earlier": 1}
    # Another person who agrees, but less, counts beside her; once.
    report = deliver(done, "d", [first | {"annotator": "ben"}])
    assert report.values["beside"] == {"agree": 1, "differ": 0}
    with pytest.raises(NothingNewError):
        deliver(done, "e", [first | {"annotator": "ben", "category": "sent again"}])
    path = done.workspace.parent / "c.jsonl"
    # The very same file, now as corrections.
    report = ingest(store_of(done), [path], done.intake, correct=True)
    assert not report.already
    assert report.values["corrections"] == 1
    assert report.values["reasons"] == {"duplicate_earlier": 1}
    assert ingest(store_of(done), [path], done.intake, correct=True).already
    assert "judged again" in why(done)


def test_a_correction_may_be_corrected(done: Any) -> None:
    first = rows("a")[0]
    deliver(done, "c", [turned(first, annotator="ana", corrects=True)])
    deliver(done, "d", [first | {"annotator": "ana", "corrects": True}])
    excluded = excluded_rows(store_of(done))
    store = store_of(done)
    assert {store.batch(id).sequence: sorted(rows) for id, rows in excluded.items()} == {
        1: [0],
        3: [0],
    }


def label_studio(number: int, *verdicts: tuple[str, str, str]) -> dict[str, Any]:
    """A task of Label Studio's export with (person, side, time) of each annotation."""
    return {
        "data": {
            "prompt": f"task {number}",
            "answer1": f"first {number}",
            "answer2": f"second {number}",
            "domain": "safety" if number % 2 else "helpfulness",
        },
        "annotations": [
            {
                "completed_by": {"email": who},
                "result": [{"from_name": "preference", "value": {"selected": side}}],
                "created_at": "2026-01-01T00:00:00Z",
                "updated_at": when,
            }
            for who, side, when in verdicts
        ],
    }


def flat(number: int, *verdicts: tuple[str, str, str]) -> dict[str, Any]:
    """The same as a flat record of Argilla."""
    return {
        "prompt": f"task {number}",
        "answer1": f"first {number}",
        "answer2": f"second {number}",
        "domain": "safety" if number % 2 else "helpfulness",
        "preference.responses": [{"left": "answer1", "right": "answer2"}[v[1]] for v in verdicts],
        "preference.responses.users": [verdict[0] for verdict in verdicts],
        "preference.responses.status": ["submitted"] * len(verdicts),
        "updated_at": max(verdict[2] for verdict in verdicts),
    }


EARLY, LATE = "2026-01-01T10:00:00Z", "2026-01-02T10:00:00.5+01:00"


@pytest.mark.parametrize("task", [label_studio, flat])
def test_a_tools_later_export_corrects_what_people_changed(tmp_path: Path, task: Any) -> None:
    program = inbox_program(tmp_path / "workspace", versions=1)
    tasks = [task(number, ("ana", "left", EARLY)) for number in range(6)]
    tasks.append(task(6, ("ana", "left", EARLY), ("ben", "left", EARLY)))
    deliver(program, "first", tasks)
    tasks[2] = task(2, ("ana", "right", LATE))
    tasks[3] = task(3, ("ben", "right", LATE))  # another person
    tasks[4] = task(4, ("ana", "right", EARLY))  # not changed since
    tasks[5] = task(5, ("ana", "left", EARLY), ("ben", "right", LATE), ("cy", "right", LATE))
    tasks[6] = task(6, ("ana", "right", LATE), ("ben", "right", LATE))
    report = deliver(program, "again", tasks)
    assert report.values["reasons"] == {"conflict_earlier": 1, "duplicate_earlier": 2}
    assert report.values["beside"] == {"agree": 0, "differ": 1}
    assert report.values["corrections"] == 3
    store = store_of(program)
    assert {store.batch(id).sequence: sorted(r) for id, r in excluded_rows(store).items()} == {
        1: [2, 5, 6]
    }
    assert waiting_comparisons(store) == 8


def test_a_single_comparison_is_withdrawn_and_restored(done: Any, stages: Any) -> None:
    change = withdraw(done, "1", ["2"], reason="nonsense", by="cy")
    assert change.comparisons == -1
    assert "comparison 2 of batch 0001-" in why(done)
    assert "was withdrawn by cy" in why(done)
    assert in_words(excluded_rows(store_of(done))[store_of(done).batch("1").id])[0].endswith(
        "nonsense"
    )
    with pytest.raises(AlignError, match="is withdrawn"):
        withdraw(done, "1", ["ana.jsonl:2"], reason="")
    withdraw(done, "1", ["ana.jsonl:3"], reason="nonsense too")
    run_what_can_be_done(done)
    assert not {"a question 1", "a question 2"} & chosen(done).keys()
    assert "a question 0" in chosen(done)
    for wrong in ("99", "ben.jsonl:2", "0" * 16, "x"):
        with pytest.raises(DataError, match="no comparison"):
            withdraw(done, "1", [wrong], reason="")
    stages.ran.clear()
    assert restore(done, "1", ["2", "3"]).comparisons == 2
    run_what_can_be_done(done)
    assert stages.ran == [], "what was trained before counts again"
    with pytest.raises(AlignError, match="is not withdrawn"):
        restore(done, "1", ["2"])


def test_what_a_blocked_annotator_judged_trains_nothing(done: Any, stages: Any) -> None:
    with pytest.raises(DataError, match="no comparison names an annotator 'benn'") as error:
        block(done, "benn", reason="")
    assert error.value.remedy == "did you mean ben?"
    change = block(done, "ben", reason="picks the left one", by="cy")
    assert change.comparisons == -10
    assert {"rlhf-v1/intake", "rlhf-v1/reward_safety"} <= set(change.stale)
    assert "10 comparisons do not count: annotator ben was blocked by cy" in why(done)
    run_what_can_be_done(done)
    assert chosen(done).keys() == {f"a question {number}" for number in range(10)}
    with pytest.raises(AlignError, match="ben was blocked by cy"):
        block(done, "ben", reason="")
    assert len(judged_ids(store_of(done))) == 10, "his pairs may be handed out again"
    # What he judges from now on is kept, and counts for nothing.
    deliver(done, "more", rows("c", annotator="ben"))
    assert waiting_comparisons(store_of(done)) == 0
    assert "0 new comparisons are there (at least 8 needed)" in str(
        waits_for(inbox_program(done.workspace, versions=2), "rlhf-v2")
    )
    # Others may judge the same pairs.
    again = [turned(row, annotator="cy") for row in rows("b", 4)]
    assert deliver(done, "again", again).values["rows"]["accepted"] == 4
    stages.ran.clear()
    unblock(done, "ben")
    # Those that cy judged since stay out; the rest counts again.
    assert len(excluded_rows(store_of(done))[store_of(done).batch("2").id]) == 4
    assert waiting_comparisons(store_of(done)) == 14
    with pytest.raises(AlignError, match="is not blocked"):
        unblock(done, "ben")


def test_pairs_that_several_judged_stand_as_long_as_the_others_agree(tmp_path: Path) -> None:
    program = inbox_program(tmp_path / "workspace")
    tasks = [
        label_studio(0, ("ana", "left", EARLY), ("ben", "left", EARLY)),
        label_studio(1, ("ana", "left", EARLY), ("ben", "left", EARLY), ("cy", "right", EARLY)),
        label_studio(2, ("ana", "left", EARLY), ("cy", "left", EARLY), ("ben", "right", EARLY)),
        label_studio(3, ("ben", "left", EARLY)),
        label_studio(4, ("cy", "left", EARLY)),
    ]
    report = deliver(program, "several", tasks)
    assert report.values["rows"]["accepted"] == 5
    block(program, "ben", reason="")
    assert {id: sorted(r) for id, r in excluded_rows(store_of(program)).items()} == {
        report.id: [1, 3]
    }
    assert unnamed_votes(program) == 0
    voted = {"votes": ["chosen", "rejected", "chosen"]}
    deliver(program, "unnamed", rows("u", 2, **voted))
    assert unnamed_votes(program) == 2


def test_a_verdict_corrected_to_a_tie_is_set_aside(tmp_path: Path) -> None:
    program = inbox_program(tmp_path / "workspace", versions=1)
    tasks = [label_studio(number, ("ana", "left", EARLY)) for number in range(10)]
    deliver(program, "first", tasks)
    run_what_can_be_done(program)
    assert len(chosen(program)) == 10
    tasks[3] = label_studio(3, ("ana", "tie", LATE))
    tasks[4] = label_studio(4, ("ben", "tie", LATE))  # another person
    report = deliver(program, "again", tasks)
    assert report.values["rows"] == {"read": 10, "accepted": 0, "quarantined": 0, "dropped": 10}
    assert report.values["corrections"] == 1
    assert "1 comparison does not count: judged again" in why(program)
    run_what_can_be_done(program)
    assert "task 3" not in chosen(program)
    assert "task 4" in chosen(program)
    # A batch of nothing but ties does no harm to the version that takes it in.
    later = inbox_program(program.workspace, versions=2)
    deliver(later, "more", rows("more"))
    run_what_can_be_done(later)
    assert program_status(later).done


def test_a_line_that_several_files_have_is_not_guessed(done: Any) -> None:
    folder = done.workspace.parent / "two"
    folder.mkdir()
    for tag in "xy":
        text = "".join(json.dumps(row) + "\n" for row in rows(tag, 4))
        (folder / f"{tag}.jsonl").write_text(text)
    ingest(store_of(done), [folder], done.intake)
    with pytest.raises(DataError, match="line 2 stands in several files") as error:
        withdraw(done, "3", ["2"], reason="")
    assert re.search(r"x.jsonl:2 \(id \w{16}\), y.jsonl:2 \(id", error.value.remedy or "")
    assert excluded_rows(store_of(done)) == {}
    assert withdraw(done, "3", ["y.jsonl:2"], reason="").comparisons == -1


def test_what_undoes_it_is_named_whole(done: Any) -> None:
    withdraw(done, "1", ["2", "3"], reason="")
    with pytest.raises(AlignError) as error:
        withdraw(done, "1", ["2", "3"], reason="")
    assert error.value.remedy == "`align batches restore 1 --only 2 --only 3` undoes it"


def test_a_tie_counts_only_with_those_who_found_one(tmp_path: Path) -> None:
    """Ben's is the other half of a tie, or the tie: without him the first verdict stands again."""
    program = inbox_program(tmp_path / "workspace", versions=1)
    tasks = [label_studio(number, ("ana", "left", EARLY)) for number in range(8)]
    deliver(program, "first", tasks)
    tasks[2] = label_studio(2, ("ana", "left", EARLY), ("ben", "right", LATE))
    tasks[3] = label_studio(3, ("ana", "tie", LATE))
    report = deliver(program, "again", tasks)
    assert report.values["corrections"] == 2

    def without() -> list[int]:
        return sorted(excluded_rows(store_of(program)).get(store_of(program).batch("1").id, ()))

    assert without() == [2, 3]
    assert block(program, "ben", reason="").comparisons == 1
    assert without() == [3]
    assert unblock(program, "ben").comparisons == -1
    assert without() == [2, 3]
    assert set(excluded_rows(store_of(program))) == {store_of(program).batch("1").id}


def test_a_batch_of_ties_gives_back_what_it_took(tmp_path: Path) -> None:
    program = inbox_program(tmp_path / "workspace", versions=1)
    tasks = [label_studio(number, ("ana", "left", EARLY)) for number in range(8)]
    deliver(program, "first", tasks)
    tasks[3] = label_studio(3, ("ana", "tie", LATE))
    deliver(program, "again", tasks)
    assert withdraw(program, "2", reason="").comparisons == 1
    assert restore(program, "2").comparisons == -1


def test_a_tie_that_names_another_pair_corrects_nothing(done: Any) -> None:
    store = store_of(done)
    ids = [store.batch("1").id]
    found = {c.chosen: c.id for c in store.training(ids) + store.heldout(ids)}

    def tie(number: int, corrects: str) -> dict[str, Any]:
        row = rows("a")[number]
        return {
            "conversation": row["conversation"],
            "answer1": row["chosen"],
            "answer2": row["rejected"],
            "domain": row["domain"],
            "preference": "tie",
            "annotator": "ben",
            "corrects": corrects,
        }

    lines = [tie(0, found["good a 1"]), tie(2, found["good a 2"]), tie(4, "0" * 16)]
    path = done.workspace.parent / "ties.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = ingest(store, [path], done.intake.model_copy(update={"max_quarantine": 1.0}))
    assert report.values["corrections"] == 1
    assert report.values["reasons"] == {"tie": 1, "unknown_correction": 2}
    assert {id: sorted(rows) for id, rows in excluded_rows(store).items()} == {ids[0]: [2]}


def test_who_lost_a_domain_by_exclusions_waits_for_more(done: Any) -> None:
    block(done, "ana", reason="")
    block(done, "ben", reason="left")
    waiting = waits_for(done, "rlhf-v1")
    assert waiting is not None
    assert "none on helpfulness and safety" in waiting.message
    assert "10 comparisons do not count: annotator ben was blocked" in waiting.message
    assert "align annotate unblock" in (waiting.remedy or "")
    deliver(done, "new", rows("c"))
    run_what_can_be_done(done)
    assert chosen(done).keys() == {f"c question {number}" for number in range(10)}
    unblock(done, "ana")
    run_what_can_be_done(done)
    assert len(chosen(done)) == 20
