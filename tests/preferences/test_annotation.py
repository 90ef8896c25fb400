"""Pairs go out without provenance, verdicts come back with it."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alignment.config.intake import IntakeConfig
from alignment.errors import DataError
from alignment.preferences.annotation import Tool, export_tasks
from alignment.preferences.intake import ingest
from alignment.preferences.rows import Draft
from alignment.preferences.schema import Comparison, comparison_id
from alignment.preferences.source_reader import SourceReader
from alignment.preferences.sources import find_sources
from alignment.preferences.store import PreferenceStore
from alignment.preferences.tally import CUT

CONFIG = IntakeConfig(heldout_share=0.0)


def pairs(count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{number:016x}",
            "conversation": [
                {"role": "user", "content": f"question {number}"},
                {"role": "assistant", "content": "go on"},
                {"role": "user", "content": "well?"},
            ],
            "responses": [
                {"text": f"old answer {number}", "version": "sft", "temperature": 0.7},
                {
                    "text": f"new answer {number}",
                    "version": "rlhf-v1",
                    "temperature": 1.2,
                    "finished": number % 4 == 0,
                },
            ],
            "domain": "safety" if number % 2 else "helpfulness",
            "category": "numbers",
        }
        for number in range(count)
    ]


def annotate(
    path: Path,
    tool: Tool,
    people: int,
    better: Callable[[str], bool] = lambda text: text.startswith("new"),
) -> None:
    """People prefer the answer that says `new`, call it safe and the other unsafe."""
    text = path.read_text()
    if tool == "jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
        for row in rows:
            new = 1 if better(row["answer1"]) else 2
            row |= {"preference": f"answer{new}", "strength": "slightly", "annotator": "ann"}
            row |= {f"safety{new}": "safe", f"safety{3 - new}": "unsafe"}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return
    tasks = json.loads(text)
    for number, task in enumerate(tasks):
        shown = task["data"] if tool == "label-studio" else task["fields"]
        new = 1 if better(shown["answer1"]) else 2
        said = {"strength": "slightly", f"safety{new}": "safe", f"safety{3 - new}": "unsafe"}
        if tool == "label-studio":
            task["id"] = number
            result: list[dict[str, Any]] = [
                {
                    "from_name": "preference",
                    "type": "pairwise",
                    "value": {"selected": "left" if new == 1 else "right"},
                }
            ]
            result += [
                {"from_name": name, "type": "choices", "value": {"choices": [value]}}
                for name, value in said.items()
            ]
            task["annotations"] = [
                {"completed_by": person, "was_cancelled": False, "result": result}
                for person in range(people)
            ]
            task["annotations"].append({"was_cancelled": True, "result": []})
        else:
            task["status"] = "completed"
            task["responses"] = {
                name: [
                    {"user_id": f"u{person}", "value": value, "status": "submitted"}
                    for person in range(people)
                ]
                for name, value in {**said, "preference": f"answer{new}"}.items()
            }
    path.write_text(json.dumps(tasks))


def check_restored(rows: list[Comparison], count: int, people: int) -> None:
    assert len(rows) == count
    for row in rows:
        assert row.chosen.startswith("new")
        assert row.rejected.startswith("old")
        assert row.chosen_by is not None
        assert row.rejected_by is not None
        assert (row.chosen_by.version, row.chosen_by.temperature) == ("rlhf-v1", 1.2)
        assert (row.rejected_by.version, row.rejected_by.temperature) == ("sft", 0.7)
        number = int(row.chosen.split()[-1])
        assert row.answers == ((row.chosen, number % 4 == 0), (row.rejected, True))
        assert row.strength == "slightly"
        assert row.safety_bin == "chosen_safe"
        assert row.domain == ("safety" if number % 2 else "helpfulness")
        assert row.category == "numbers"
        assert len(row.conversation) == 3
        assert (row.annotator is None) == (people > 1)
        assert row.votes == (["chosen"] * people if people > 1 else None)


@pytest.mark.parametrize(("tool", "people"), [("label-studio", 1), ("argilla", 3), ("jsonl", 1)])
def test_round_trip_restores_provenance(tool: Tool, people: int, tmp_path: Path) -> None:
    store = PreferenceStore(tmp_path / "preferences")
    path = tmp_path / ("labels.jsonl" if tool == "jsonl" else "labels.json")
    done = export_tasks(store, pairs(40), tool, path, seed=1)
    assert done.tasks == 40
    for secret in ("sft", "rlhf-v1", "0.7", "1.2", "temperature", "version", "finished"):
        assert secret not in path.read_text(), f"annotators can see {secret}"
    annotate(path, tool, people)
    report = ingest(store, [path], CONFIG)
    assert report.values["rows"]["accepted"] == 40
    newer = report.values["newer_wins"]
    assert (newer["pairs"], newer["share"], newer["high"]) == (40, 1.0, 1.0)
    assert newer["low"] < 1.0
    assert dict(report.values["notes"]) == {CUT: 30}
    check_restored(store.training([report.id]), 40, people)


@pytest.mark.parametrize("tool", ["label-studio", "argilla", "jsonl"])
def test_round_trip_of_real_conversations(tool: Tool, shared: Path, tmp_path: Path) -> None:
    """Real texts, with all their quotes, blank lines and signs, come back as they went out."""
    found = []
    for source in find_sources([shared / "data" / "hh-rlhf"]):
        rows = SourceReader(CONFIG).open(source)[1]
        found += [draft for _, draft in rows if isinstance(draft, Draft)][:400]
    sent = [
        {
            "id": f"{number:016x}",
            "conversation": [{"role": role, "content": text} for role, text in draft.turns],
            "responses": [
                {"text": draft.rejected, "version": "sft", "temperature": 0.7},
                {"text": draft.chosen, "version": "rlhf-v1", "temperature": 1.2},
            ],
            "domain": draft.domain,
            "category": None,
        }
        for number, draft in enumerate(found)
    ]
    store = PreferenceStore(tmp_path / "preferences")
    path = tmp_path / ("labels.jsonl" if tool == "jsonl" else "labels.json")
    export_tasks(store, sent, tool, path, seed=1)
    chosen = {draft.chosen for draft in found}
    annotate(path, tool, 1, better=lambda text: text in chosen)
    report = ingest(store, [path], CONFIG)
    rows = {row.id: row for row in store.training([report.id])}
    # A few rows of the file stand there twice, and a few answers are better here and worse there.
    assert len(rows) == report.values["rows"]["accepted"] > 750
    for draft in found:
        spoken = [{"role": role, "content": text} for role, text in draft.turns]
        row = rows.get(comparison_id(str(draft.domain), spoken, draft.chosen, draft.rejected))
        if row is not None and draft.rejected not in chosen:
            assert (row.chosen, row.rejected) == (draft.chosen, draft.rejected)
            assert row.conversation == spoken
            assert (row.chosen_by.version, row.rejected_by.version) == ("rlhf-v1", "sft")


def test_the_short_export_of_label_studio_is_read_too(tmp_path: Path) -> None:
    store = PreferenceStore(tmp_path / "preferences")
    path = tmp_path / "labels.json"
    export_tasks(store, pairs(4), "label-studio", path, seed=1)
    short = []
    for number, task in enumerate(json.loads(path.read_text())):
        side = "left" if task["data"]["answer1"].startswith("new") else "right"
        said = {"preference": {"selected": side}, "strength": "slightly", "annotator": 7}
        short.append({**task["data"], **said, "id": number, "annotation_id": number})
    back = tmp_path / "short.json"
    back.write_text(json.dumps(short))
    report = ingest(store, [back], CONFIG)
    rows = store.training([report.id])
    assert len(rows) == 4
    assert all(row.chosen.startswith("new") and row.annotator == "7" for row in rows)
    assert {row.chosen_by.version for row in rows if row.chosen_by} == {"rlhf-v1"}


def test_the_order_of_answers_is_random_but_repeatable(tmp_path: Path) -> None:
    store = PreferenceStore(tmp_path / "preferences")
    texts = []
    for name in ("a", "b"):
        export_tasks(store, pairs(200), "jsonl", tmp_path / name, seed=4)
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1]
    first = Counter(json.loads(line)["answer1"].split()[0] for line in texts[0].splitlines())
    assert 70 < first["new"] < 130


def test_the_most_uncertain_pairs_go_first(tmp_path: Path) -> None:
    store = PreferenceStore(tmp_path / "preferences")
    unsure = {f"{number:016x}": random.Random(number).random() for number in range(30)}
    path = tmp_path / "some.jsonl"
    export_tasks(
        store,
        pairs(30),
        "jsonl",
        path,
        seed=0,
        limit=5,
        uncertainty=lambda pair: unsure[pair["id"]],
    )
    asked = [
        json.loads(line)["conversation"][0]["content"] for line in path.read_text().splitlines()
    ]
    best = sorted(unsure, key=unsure.__getitem__, reverse=True)[:5]
    assert asked == [f"question {int(name, 16)}" for name in best]


def test_unjudged_and_unknown_tasks_are_counted(tmp_path: Path) -> None:
    store = PreferenceStore(tmp_path / "preferences")
    path = tmp_path / "labels.jsonl"
    export_tasks(store, pairs(20), "jsonl", path, seed=1)
    annotate(path, "jsonl", 1)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["preference"] = ""
    rows[1]["preference"] = "tie"
    rows[2]["align_task"] = "align-00000000000000000000"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = ingest(store, [path], CONFIG)
    assert report.values["reasons"] == {"no_side": 1, "tie": 1, "unknown_task": 1}
    with pytest.raises(DataError, match="no pairs"):
        export_tasks(store, [], "jsonl", path, seed=1)


def test_an_argilla_table_of_other_origin_is_read(tmp_path: Path) -> None:
    rows = [
        {
            "id": str(number),
            "status": "completed",
            "prompt": f"question {number}",
            "response-1": f"good {number}",
            "response-2": f"bad {number}",
            "preference.responses": [["response-1", "response-2"], ["response-1", "response-2"]],
            "preference.responses.users": ["u1", "u2"],
            "preference.responses.status": ["submitted", "submitted"],
        }
        for number in range(5)
    ]
    path = tmp_path / "argilla.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = PreferenceStore(tmp_path / "preferences")
    report = ingest(store, [path], CONFIG, domain="helpfulness")
    assert report.values["sources"][0]["format"] == "argilla"
    found = store.training([report.id])
    assert [row.chosen for row in found] == [f"good {number}" for number in range(5)]
    assert found[0].strength == "significantly"
    assert found[0].votes == ["chosen", "chosen"]
