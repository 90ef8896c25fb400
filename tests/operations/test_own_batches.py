"""People correct, and take back, what a program that makes its own preferences has learned from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from deliveries_of_people import deliver, rows, run_what_can_be_done, store_of

from alignment.config.load import check_program
from alignment.operations.status import done_stages, program_status
from alignment.operations.withdraw import restore, withdraw
from alignment.preferences.what_counts import recorded_exclusions
from alignment.utils.json_lines import json_line

pytestmark = pytest.mark.usefixtures("real_intake")


@pytest.fixture
def split(tmp_path: Path, stages: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Two finished versions, each of which learned from an arrival of ten."""

    def prepare(context: Any) -> None:
        if context.stage == "prepare":
            for number in (1, 2):
                folder = context.out / "arrivals" / f"{number:02d}"
                folder.mkdir(parents=True)
                lines = map(json_line, rows(f"arrival {number}"))
                (folder / "arrival.jsonl").write_text("".join(lines))

    stages.before = prepare
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.json").write_text("{}")
    program = check_program(
        {
            "name": "split",
            "workspace": str(tmp_path / "workspace"),
            "base": {"source": "path", "path": str(outside)},
            "intake": {"source": "split", "heldout_share": 0.2},
            "rewards": {"batch": 1, "epochs": 10},
            "data": {"path": str(outside)},
            "versions": [{"name": "rlhf-v1"}, {"name": "rlhf-v2"}],
            "tracking": {"enabled": False},
        }
    )
    run_what_can_be_done(program)
    return program


def verdicts(program: Any, version: str) -> dict[str, list[str]]:
    """First turn → chosen answers that reward models of `version` learn from or are tested on."""
    store = store_of(program)
    names = program.version_names
    intakes = [
        done_stages(program)[name]["intake"]
        for name in names[1 : names.index(version) + 1]
        if name.startswith("rlhf")
    ]
    excluded = recorded_exclusions(intakes)
    found: dict[str, list[str]] = {}
    for intake in intakes:
        for batch in json.loads((intake / "batch.json").read_text())["batches"]:
            ids = [batch["id"]]
            read = store.training(ids, excluded=excluded) + store.heldout(ids, excluded=excluded)
            for one in read:
                found.setdefault(one.conversation[0]["content"], []).append(one.chosen)
    return found


def stale(program: Any) -> list[str]:
    return [
        f"{version.name}/{stage.stage}"
        for version in program_status(program).versions
        for stage in version.stages
        if stage.state != "done"
    ]


def test_a_correction_of_an_own_batch_leaves_one_verdict_on_the_pair(split: Any) -> None:
    first = rows("arrival 1")[0]
    store = store_of(split)
    ids = [store.batch("1").id]
    (own,) = [
        one.id for one in store.training(ids) + store.heldout(ids) if one.chosen == first["chosen"]
    ]
    turned = first | {"chosen": first["rejected"], "rejected": first["chosen"]}
    deliver(split, "person", [turned | {"annotator": "ana", "corrects": own}])
    assert "rlhf-v1/intake" in stale(split)
    run_what_can_be_done(split)
    assert stale(split) == []
    assert first["conversation"][0]["content"] not in verdicts(split, "rlhf-v2")
    # Taken back, the first verdict stands again.
    withdraw(split, "3", reason="")
    run_what_can_be_done(split)
    assert stale(split) == []
    assert verdicts(split, "rlhf-v2")[first["conversation"][0]["content"]] == [first["chosen"]]


def test_a_comparison_of_an_own_batch_is_withdrawn_and_restored(split: Any) -> None:
    first = rows("arrival 1")[0]["conversation"][0]["content"]
    withdraw(split, "1", ["1"], reason="")
    run_what_can_be_done(split)
    assert stale(split) == []
    assert first not in verdicts(split, "rlhf-v2")
    restore(split, "1", ["1"])
    run_what_can_be_done(split)
    assert stale(split) == []
    assert len(verdicts(split, "rlhf-v2")[first]) == 1
