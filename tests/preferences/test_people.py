"""Verdicts of several people: what counts, what does not, and how far they agree."""

from __future__ import annotations

import io
import json
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from alignment.config.intake import IntakeConfig
from alignment.errors import DataError
from alignment.preferences.agreement import Alpha
from alignment.preferences.annotation import ARGILLA_SETTINGS, export_tasks
from alignment.preferences.exports import load_keys
from alignment.preferences.intake import NothingNewError, ingest
from alignment.preferences.readers.judged import moment
from alignment.preferences.report import BatchReport
from alignment.preferences.store import PreferenceStore

CONFIG = IntakeConfig(domain="helpfulness", heldout_share=0.0, max_quarantine=1.0)


def pairs(count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{number:016x}",
            "conversation": [{"role": "user", "content": f"question {number}"}],
            "responses": [
                {"text": f"old {number}", "version": "sft", "temperature": 1.0},
                {"text": f"new {number}", "version": "rlhf-v1", "temperature": 1.0},
            ],
            "domain": "helpfulness",
        }
        for number in range(count)
    ]


def take(rows: list[dict[str, Any]], folder: Path) -> tuple[BatchReport, PreferenceStore]:
    path = folder / "labels.json"
    path.write_text(json.dumps(rows))
    store = PreferenceStore(folder / "preferences")
    return ingest(store, [path], CONFIG), store


def exported(tool: Any, count: int, folder: Path) -> list[dict[str, Any]]:
    out = folder / "out.json"
    export_tasks(PreferenceStore(folder / "preferences"), pairs(count), tool, out, seed=1)
    rows: list[dict[str, Any]] = json.loads(out.read_text())
    return rows


def short(task: dict[str, Any], person: int, side: Any, **more: Any) -> dict[str, Any]:
    """A row of Label Studio's JSON-MIN export: one a person."""
    return {**task["data"], "annotator": person, "preference": side, "lead_time": 2.5, **more}


def test_rows_of_several_people_are_put_together(tmp_path: Path) -> None:
    agreed, split, single, lone, note = exported("label-studio", 5, tmp_path)
    rows = [
        short(agreed, 1, [{"selected": "left"}], strength="better", id=1),
        short(split, 1, [{"selected": "left"}], id=2),
        short(agreed, 2, "left", strength={"choices": ["slightly"]}, id=3),
        short(split, 2, "right", id=4),
        short(single, 1, "tie", id=5),
        short(lone, 2, "right", id=6),
        short(lone, 2, "left", id=7),  # the same person again: the later verdict counts
        short(note, 2, "right", id=8, note="both are odd"),
    ]
    report, store = take(rows, tmp_path)
    assert report.values["rows"] == {"read": 8, "accepted": 3, "quarantined": 0, "dropped": 5}
    assert report.values["reasons"] == {"joined": 3, "tie": 2}
    assert report.values["sources"][0]["unused"] == {"note": {"rows": 1, "share": 0.125}}
    assert sum(report.values["notes"].values()) == 1
    found = {row.conversation[0]["content"]: row for row in store.training([report.id])}
    votes = [row.votes for row in found.values()]
    assert sorted(votes, key=str) == [None, None, ["chosen", "chosen"]]
    people = report.values["annotators"]
    assert (people["voted_pairs"], people["agreement"]) == (2, 0.5)
    assert people["agreement_by_name"] == {"1": 0.5, "2": 0.5}
    assert people["busiest"] == {"2": 4, "1": 3}


def labels(task: dict[str, Any], *annotations: dict[str, Any]) -> dict[str, Any]:
    return {**task, "annotations": list(annotations)}


def by(person: Any, *results: dict[str, Any], **more: Any) -> dict[str, Any]:
    named = [{"from_name": next(iter(value)), "value": value} for value in results]
    return {"completed_by": person, "result": named, **more}


def test_label_studio_says_what_became_of_each_task(tmp_path: Path) -> None:
    tasks = exported("label-studio", 5, tmp_path)
    strength = {"from_name": "strength", "value": {"choices": ["better"]}}
    sideless = {"completed_by": 1, "result": [strength]}
    side = {"from_name": "preference", "value": {"choices": ["left"]}}
    rows = [
        labels(tasks[0], {"completed_by": {"email": "ana@example.org"}, "result": [side]}),
        labels(tasks[1], sideless),
        labels(tasks[2], {"completed_by": 2, "was_cancelled": True, "result": []}),
        labels(tasks[3]),
        labels(tasks[4], sideless, {"created_username": " bo@example.org, 7", "result": [side]}),
    ]
    report, store = take(rows, tmp_path)
    assert report.values["reasons"] == {"no_side": 1, "skipped": 1, "not_annotated": 1}
    names = sorted(str(row.annotator) for row in store.training([report.id]))
    assert names == ["ana@example.org", "bo@example.org"]
    assert list(report.values["notes"].values()) == [1]


def test_the_page_cannot_be_submitted_without_a_side(tmp_path: Path) -> None:
    (task,) = exported("label-studio", 1, tmp_path)
    view = ElementTree.parse(tmp_path / "out.xml").getroot()
    values = [node.get("value", "") for tag in ("Text", "Header") for node in view.iter(tag)]
    assert {value[1:] for value in values if value.startswith("$")} <= task["data"].keys()
    (choice,) = [node for node in view.iter("Choices") if node.get("name") == "preference"]
    assert choice.get("required") == "true"
    assert {node.get("alias") for node in choice} == {"left", "right", "tie"}
    (asked,) = [node for node in view.iter("View") if node.get("whenTagName") == "preference"]
    (tie,) = [node for node in choice if node.get("alias") == "tie"]
    # Whether Label Studio compares the value or the alias: a tie needs no strength.
    assert asked.get("whenChoiceValue", "").split(",") == [tie.get("value"), "tie"]
    assert "question 0" in task["data"]["transcript"]
    assert task["data"]["instruction"].startswith("Helpfulness")


def test_argilla_without_a_status_is_refused_and_drafts_never_count(tmp_path: Path) -> None:
    tasks = exported("argilla", 4, tmp_path)
    for status, task in zip((None, "submitted", "draft", "discarded"), tasks, strict=True):
        answer = {"user_id": "u", "value": "answer1"} | ({"status": status} if status else {})
        task["responses"] = {"preference": [answer]}
    report, store = take(tasks, tmp_path)
    assert report.values["reasons"] == {"no_status": 1, "not_annotated": 1, "skipped": 1}
    assert len(list(store.training([report.id]))) == 1


def test_argilla_flat_rows_follow_their_status(tmp_path: Path) -> None:
    tasks = exported("argilla", 3, tmp_path)
    states: list[list[str] | None] = [["submitted", "draft"], ["discarded", "draft"], None]
    rows = [
        {
            "id": task["id"], **task["fields"],
            "preference.responses": ["answer2", "answer1"],
            "preference.responses.users": ["u", "v"],
            "preference.responses.status": status,
        }
        for task, status in zip(tasks, states, strict=True)
    ]  # fmt: skip
    report, store = take(rows, tmp_path)
    assert report.values["reasons"] == {"skipped": 1, "no_status": 1}
    (found,) = store.training([report.id])
    assert found.annotator == "u"


@pytest.mark.parametrize(
    "value", [{"rank": [2, 1], "value": ["response-1", "response-2"]}, "response-2"]
)
def test_argilla_of_the_first_generation_is_read(value: Any, tmp_path: Path) -> None:
    answer = {"user_id": "u", "value": value, "status": "submitted"}
    row = {"prompt": "q", "response-1": "bad", "response-2": "good", "preference": [answer]}
    unjudged = {**row, "preference": [], "preference-suggestion": None}
    report, store = take([row, unjudged], tmp_path)
    assert report.values["sources"][0]["format"] == "argilla"
    assert report.values["reasons"] == {"not_annotated": 1}
    (found,) = store.training([report.id])
    assert (found.chosen, found.annotator) == ("good", "u")


def test_a_settings_file_for_argilla_is_written(tmp_path: Path) -> None:
    (task,) = exported("argilla", 1, tmp_path)
    written = json.loads((tmp_path / "out.settings.json").read_text())
    assert written == ARGILLA_SETTINGS
    assert {field["name"] for field in written["fields"]} == task["fields"].keys()
    assert next(question["name"] for question in written["questions"]) == "preference"


def test_a_transcript_is_the_prompt_where_the_instruction_is_the_guideline(tmp_path: Path) -> None:
    shown = {"transcript": "Human: q", "instruction": "Which helps?", "answer1": "a"}
    row = {"data": {**shown, "answer2": "b"}, "annotations": [by(1, {"selected": "left"})]}
    report, store = take([row], tmp_path)
    (found,) = store.training([report.id])
    assert [turn["content"] for turn in found.conversation] == ["q"]


def side(name: str, value: str) -> dict[str, Any]:
    return {"from_name": name, "value": {"selected": value}}


@pytest.mark.parametrize(
    ("results", "chosen"),
    [
        ([side("pw", "left")], "a"),
        ([side("safer", "left"), side("preference", "right")], "b"),
        ([side("preference", "right"), side("safer", "left")], "b"),
        ([side("helpful", "left"), side("safer", "right")], None),
        ([side("pw", "left"), side("pw", "right")], None),
    ],
)
def test_of_several_questions_none_is_taken_for_the_verdict(
    results: list[dict[str, Any]], chosen: str | None, tmp_path: Path
) -> None:
    data = {"prompt": "q", "answer1": "a", "answer2": "b"}
    long = {"data": data, "annotations": [{"completed_by": 1, "result": results}]}
    short_row: dict[str, Any] = {**data, "annotator": 1}
    for result in results:
        short_row[result["from_name"]] = [result["value"]]
    both = [long] if results[0]["from_name"] == results[-1]["from_name"] else [long, short_row]
    for number, row in enumerate(both):
        (tmp_path / str(number)).mkdir()
        if chosen is None:
            with pytest.raises(DataError, match="a verdict that cannot be read"):
                take([row], tmp_path / str(number))
        else:
            report, store = take([row], tmp_path / str(number))
            assert [one.chosen for one in store.training([report.id])] == [chosen]


def test_of_several_questions_of_argilla_none_is_taken_for_the_verdict(tmp_path: Path) -> None:
    def record(task: dict[str, Any], **values: str) -> dict[str, Any]:
        row = {"id": task["id"], **task["fields"]}
        for name, value in values.items():
            row[f"{name}.responses"] = [value]
            row[f"{name}.responses.status"] = ["submitted"]
        return row

    tasks = exported("argilla", 3, tmp_path)
    rows = [
        record(tasks[0], best="answer1"),
        record(tasks[1], best="answer1", preference="answer2"),
        record(tasks[2], best="answer1", choice="answer2"),
    ]
    report, store = take(rows, tmp_path)
    assert report.values["reasons"] == {"bad_vote": 1}
    unused = {name: found["rows"] for name, found in report.values["sources"][0]["unused"].items()}
    assert unused == {"responses.best": 2}
    keys, found = load_keys(store.root), store.training([report.id])
    sides = [keys[tasks[0]["id"]]["first"], keys[tasks[1]["id"]]["second"]]
    assert {one.chosen for one in found} == {side["text"] for side in sides}


def test_a_persons_last_change_counts_wherever_it_stands(tmp_path: Path) -> None:
    task, other = exported("label-studio", 2, tmp_path)
    late, early = {"updated_at": "2026-11-02T09:00:00Z"}, {"updated_at": "2026-11-01T09:00:00Z"}
    report, _ = take(
        [labels(task, by(1, {"selected": "left"}, **late), by(1, {"selected": "right"}, **early))],
        tmp_path,
    )
    (first,) = PreferenceStore(tmp_path / "preferences").training([report.id])
    rows = [short(other, 1, "left", **late), short(other, 1, "right", **early)]
    report, store = take(rows, tmp_path)
    (second,) = store.training([report.id])
    keys = load_keys(store.root)
    for found, shown in ((first, task), (second, other)):
        assert found.chosen == keys[shown["data"]["align_task"]]["first"]["text"]


def test_verdicts_on_two_domains_are_two_comparisons(tmp_path: Path) -> None:
    row = {"prompt": "q", "answer1": "a", "answer2": "b", "annotator": "ana"}
    rows = [
        {**row, "domain": "helpfulness", "preference": "a"},
        {**row, "domain": "safety", "preference": "b"},
    ]
    report, store = take(rows, tmp_path)
    found = {one.domain: one.chosen for one in store.training([report.id])}
    assert found == {"helpfulness": "a", "safety": "b"}


def test_two_choices_at_once_are_no_verdict(tmp_path: Path) -> None:
    data = {"prompt": "q", "answer1": "a", "answer2": "b"}
    both = {"from_name": "preference", "value": {"choices": ["left", "right"]}}
    row = {"data": data, "annotations": [{"completed_by": 1, "result": [both]}]}
    with pytest.raises(DataError, match="a verdict that cannot be read"):
        take([row], tmp_path)


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", 7, "?"])
def test_a_time_that_is_none_is_passed_over(when: Any, tmp_path: Path) -> None:
    task = {
        "data": {"prompt": "question", "answer1": "one", "answer2": "two", "domain": "safety"},
        "annotations": [
            {
                "result": [{"from_name": "preference", "value": {"selected": "left"}}],
                "updated_at": when,
            }
        ],
    }
    assert moment(when) == ""
    assert take([task], tmp_path)[0].values["rows"]["accepted"] == 1


def rated(number: int, winner: str, who: str | None, **more: Any) -> dict[str, Any]:
    """A row of our own schema, one a person."""
    sides = {"chosen": "A", "rejected": "B"} if winner == "A" else {"chosen": "B", "rejected": "A"}
    row = {"conversation": [{"role": "user", "content": f"question {number}"}], **sides, **more}
    return row if who is None else row | {"annotator": who}


def deliver(store: PreferenceStore, name: str, *rows: dict[str, Any]) -> BatchReport:
    path = store.root.parent / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ingest(store, [path], CONFIG)


@pytest.mark.parametrize("named", [True, False])
def test_the_majority_decides_and_not_the_first_to_arrive(tmp_path: Path, named: bool) -> None:
    """W11: 40 pairs, one row for A, then two for B; all 40 stood for A."""
    store = PreferenceStore(tmp_path / "preferences")
    people = ("ana", "ben", "cy") if named else (None, None, None)
    votes = zip("ABB", people, strict=True)
    rows = [rated(number, side, who) for side, who in votes for number in range(40)]
    report = deliver(store, "several.jsonl", *rows).values
    assert report["rows"] == {"read": 120, "accepted": 40, "quarantined": 0, "dropped": 80}
    assert report["reasons"] == {"joined": 80}
    found = store.training([report["batch"]])
    assert {row.chosen for row in found} == {"B"}
    assert {tuple(row.votes or ()) for row in found} == {("rejected", "chosen", "chosen")}
    # Two of three: by `intake.agreement`, not `intake.strength`, for no row states one.
    assert {row.strength for row in found} == {"slightly"}
    people_say = report["annotators"]
    if named:
        assert people_say["agreement"] == pytest.approx(1 / 3, abs=1e-4)
        assert people_say["agreement_by_name"] == {"ana": 0.0, "ben": 0.5, "cy": 0.5}
        # Do = 2/3; in both orders 120 votes of 240 a side: De = 1 − 2·120·119/(240·239) = 0.5021.
        assert people_say["alpha"] == pytest.approx(1 - (2 / 3) / 0.502092, abs=1e-4)
    else:
        assert (people_say["agreement"], people_say["voted_unnamed"]) == (None, 40)


def test_what_the_rows_of_a_pair_state_is_put_together(tmp_path: Path) -> None:
    store = PreferenceStore(tmp_path / "preferences")
    stated = {"domain": "safety", "strength": "significantly", "safety_bin": "chosen_safe"}
    report = deliver(
        store,
        "rows.jsonl",
        rated(0, "A", "ana", **stated),
        rated(1, "A", "ana"),
        rated(1, "B", "ben"),
        rated(0, "A", "ben", **stated | {"strength": "slightly", "safety_bin": "both_safe"}),
        rated(0, "B", "cy", **stated),
        rated(0, "A", "dee", **stated | {"strength": "better"}),
        rated(2, "A", "ana"),
        rated(2, "B", "ana"),  # she changed her mind
        rated(3, "A", None),
        rated(3, "A", None),
    ).values
    assert report["reasons"] == {"joined": 5, "tie": 1, "duplicate": 1}
    found = {row.conversation[0]["content"]: row for row in store.training([report["batch"]])}
    assert found.keys() == {f"question {number}" for number in (0, 2, 3)}
    first = found["question 0"]
    assert (first.strength, first.safety_bin) == ("better", "chosen_safe")
    assert first.votes == ["chosen", "chosen", "rejected", "chosen"]
    assert (found["question 2"].chosen, found["question 2"].votes) == ("B", None)
    assert (found["question 2"].annotator, found["question 3"].votes) == ("ana", None)


def test_other_peoples_verdicts_of_later_batches_stand_beside_the_first(tmp_path: Path) -> None:
    store = PreferenceStore(tmp_path / "preferences")
    first = deliver(store, "a.jsonl", *(rated(number, "A", "ana") for number in range(4)))
    second = deliver(
        store,
        "b.jsonl",
        rated(0, "B", "ben"),
        rated(0, "B", "cy"),
        rated(1, "A", "ben"),
        rated(2, "B", "ana"),
        rated(3, "B", None),
        rated(0, "A", "ana", category="sent again"),
    )
    assert second.values["beside"] == {"agree": 1, "differ": 1}
    assert second.values["reasons"] == {
        "joined": 1,
        "conflict_earlier": 2,
        "duplicate_earlier": 1,
    }
    found = store.training([first.id, second.id])
    assert [row.chosen for row in found if row.conversation[0]["content"] == "question 0"] == [
        "A",
        "B",
    ]
    assert "1 verdicts contradict other people's" in shown(second)


def shown(report: BatchReport) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.render())
    return console.export_text()


def test_rows_count_in_the_file_in_which_they_stand(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.jsonl" for name in ("ann", "bob")]
    for path in paths:
        rows = [
            {"prompt": str(n), "chosen": "A", "rejected": "B", "annotator": path.stem}
            for n in range(3)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = ingest(PreferenceStore(tmp_path / "preferences"), paths, CONFIG)
    assert report.values["rows"]["read"] == 6
    assert [(it["file"], it["read"]) for it in report.values["sources"]] == [
        ("ann.jsonl", 3),
        ("bob.jsonl", 3),
    ]


def test_alpha_by_hand() -> None:
    alpha = Alpha()
    assert alpha.value() is None
    for votes in ({"first": 2}, {"second": 2}, {"first": 1, "second": 1}, {"tie": 2}):
        alpha.add(Counter(votes))
    # 8 votes: 2 ties, 6 others. Do = 2/8. In both orders 16 votes, 6, 6 and 4:
    # De = 1 − (30 + 30 + 12)/240 = 0.7; α = 1 − 0.25/0.7.
    assert alpha.value() == pytest.approx(1 - 0.25 / 0.7, abs=1e-4)
    flipped = Alpha()
    for votes in ({"second": 2}, {"second": 2}, {"second": 1, "first": 1}, {"tie": 2}):
        flipped.add(Counter(votes))
    assert flipped.value() == alpha.value(), "the order of the answers means nothing"


def test_where_a_batch_comes_from_is_kept(tmp_path: Path) -> None:
    store = PreferenceStore(tmp_path / "preferences")
    mine = deliver(store, "mine.jsonl", rated(0, "A", "ana"))
    path = tmp_path / "open.jsonl"
    path.write_text(json.dumps(rated(1, "A", None)) + "\n")
    report = ingest(store, [path], CONFIG, origin="open")
    assert [batch.data_origin for batch in store.batches()] == ["own", "open"]
    assert "open data" in shown(report)
    assert ingest(store, [path], CONFIG, origin="open").already
    with pytest.raises(NothingNewError):
        ingest(store, [path], CONFIG)  # own after all: another delivery of the same rows
    manifest = json.loads((mine.directory / "manifest.json").read_text())
    manifest.pop("data_origin")  # a batch of an older release
    (mine.directory / "manifest.json").write_text(json.dumps(manifest))
    assert store.batches()[0].data_origin == "own"
