"""Pairs go out to people and come back through the command line, into the next version."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from alignment.preferences.schema import Comparison
from alignment.preferences.store import PreferenceStore
from tests.loop.conftest import align

TOOLS = {"label-studio": ("uncertain", 20), "argilla": ("random", 15), "jsonl": ("random", 10)}


def on(folder: Path, *words: str) -> Any:
    return json.loads(align(*words, "--json", "-w", "workspace", cwd=folder).stdout)


@pytest.fixture(scope="module")
def labelled(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished program, with one more version to come, whose last pairs people have
    judged: always for the longer answer."""
    folder = tmp_path_factory.mktemp("labelled")
    shutil.copytree(finished / "workspace", folder / "workspace")
    program = json.loads((folder / "workspace" / "program.json").read_text())
    program["versions"].append({"name": "rlhf-v3"})
    (folder / "workspace" / "program.json").write_text(json.dumps(program))
    for tool, (selection, count) in TOOLS.items():
        words = ["--format", tool, "--select", selection, "--count", str(count)]
        done = on(folder, "annotate", "export", *words)
        assert (done["tasks"], done["version"]) == (count, "rlhf-v2")
        _judge(folder / done["file"], tool)
    return folder


def _judge(path: Path, tool: str) -> None:
    text = path.read_text(encoding="utf-8")
    for secret in ("rlhf-v", "sft", "temperature", "version"):
        assert secret not in text
    tasks = [json.loads(line) for line in text.splitlines()] if tool == "jsonl" else None
    for task in tasks if tasks is not None else (tasks := json.loads(text)):
        shown = {"label-studio": task.get("data"), "argilla": task.get("fields")}.get(tool) or task
        longer = 1 if len(shown["answer1"]) > len(shown["answer2"]) else 2
        if tool == "jsonl":
            task |= {"preference": f"answer{longer}", "strength": "better", "annotator": "ann"}
        elif tool == "argilla":
            said = {"preference": f"answer{longer}", "strength": "better"}
            task["responses"] = {
                name: [{"user_id": "ann", "value": value, "status": "submitted"}]
                for name, value in said.items()
            }
        else:
            side = "left" if longer == 1 else "right"
            results = [
                {"from_name": "preference", "type": "pairwise", "value": {"selected": side}},
                {"from_name": "strength", "type": "choices", "value": {"choices": ["better"]}},
            ]
            task["annotations"] = [{"completed_by": "ann", "result": results}]
    lines = "".join(json.dumps(task) + "\n" for task in tasks)
    path.write_text(lines if tool == "jsonl" else json.dumps(tasks), encoding="utf-8")


def test_verdicts_come_back_with_their_provenance(labelled: Path) -> None:
    collected = labelled / "workspace" / "versions" / "rlhf-v2" / "collect"
    (path,) = collected.glob("*/pairs.jsonl")
    pairs = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    shown = {
        frozenset(side["text"] for side in pair["responses"]): pair["responses"] for pair in pairs
    }
    files = sorted((labelled / "workspace" / "outbox").glob("annotate-*.json*"))
    files = [file for file in files if not file.name.endswith(".settings.json")]
    assert len(files) == len(TOOLS)
    found: list[Comparison] = []
    for file in files:
        report = on(labelled, "ingest", str(file))
        assert (report["versions"], report["next_version"]) == ([], "rlhf-v3")
        assert report["rows"]["accepted"] == report["rows"]["read"]
        store = PreferenceStore(labelled / "workspace" / "preferences")
        found += store.training([report["batch"]]) + store.heldout([report["batch"]])
        assert report["annotators"]["busiest"] == {"ann": report["rows"]["accepted"]}
    assert len(found) == sum(count for _, count in TOOLS.values())
    assert len({row.id for row in found}) == len(found)
    for row in found:
        assert len(row.chosen) >= len(row.rejected)
        by = {row.chosen: row.chosen_by, row.rejected: row.rejected_by}
        for side in shown[frozenset((row.chosen, row.rejected))]:
            who = by[side["text"]]
            assert who is not None
            assert (who.version, who.temperature) == (side["version"], side["temperature"])


def test_the_next_version_takes_them_in_beside_its_own(labelled: Path) -> None:
    align("stage", "rlhf-v3/intake", "-w", "workspace", cwd=labelled)
    listed = on(labelled, "batches")
    mine = [batch for batch in listed if batch["versions"] == ["rlhf-v3"]]
    assert sorted(batch["origin"] for batch in mine) == ["delivery"] * 3 + ["stage"]
    judged = sum(count for _, count in TOOLS.values())
    (own,) = [batch for batch in mine if batch["origin"] == "stage"]
    # The simulated annotators are asked about all pairs; people's verdicts stand.
    assert own["rows"]["read"] - own["rows"]["accepted"] >= judged
    told = on(labelled, "annotate", "list")
    assert [done["judged"] for done in told["exports"]] == [
        done["tasks"] for done in told["exports"]
    ]
    (last,) = [one for one in told["collected"] if one["version"] == "rlhf-v2"]
    assert last["exported"] == judged <= last["judged"]


def test_a_batch_shows_its_report_again(labelled: Path) -> None:
    newest = max(batch["sequence"] for batch in on(labelled, "batches"))
    told = on(labelled, "batches", str(newest), "--picture", "report.png")
    assert told["report"]["rows"] == told["rows"]
    assert (labelled / "report.png").read_bytes().startswith(b"\x89PNG")
    for words in (["batches", "99"], ["batches", "1", "--picture", "no/such/place.png"]):
        failed = align(*words, "-w", "workspace", cwd=labelled, check=False)
        assert failed.returncode in (1, 3)
        assert "Traceback" not in failed.stderr


def test_nothing_is_handed_out_twice_or_overwritten(labelled: Path, tmp_path: Path) -> None:
    words = ["annotate", "export", "rlhf-v2", "--out", str(tmp_path / "rest.jsonl")]
    align(*words, "-w", "workspace", cwd=labelled, check=False)
    again = align(*words, "-w", "workspace", cwd=labelled, check=False)
    assert again.returncode == 3
    assert "exported or judged before" in again.stderr
    (tmp_path / "taken.jsonl").write_text("somebody's work")
    words = ["annotate", "export", "--again", "--out", str(tmp_path / "taken.jsonl")]
    taken = align(*words, "-w", "workspace", cwd=labelled, check=False)
    assert taken.returncode == 1
    assert "nothing is overwritten" in taken.stderr
    assert (tmp_path / "taken.jsonl").read_text() == "somebody's work"
