"""What people deliver with `align ingest` joins the batches that programs make themselves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignment.config.intake import IntakeConfig
from alignment.config.world import WorldConfig
from alignment.errors import DataError
from alignment.preferences.intake import NothingNewError, ingest
from alignment.preferences.prompts import read_prompts
from alignment.preferences.store import PreferenceStore
from alignment.preferences.withdrawals import record
from alignment.stages import intake, prepare
from alignment.stages.context import StageContext
from tests.preferences.test_stages_data import context, real

SMALL = WorldConfig(corpus_documents=50, demonstrations=50, prompts=60)


def store_of(root: Path) -> PreferenceStore:
    return PreferenceStore(root / "workspace" / "preferences")


def taken(ctx: StageContext) -> list[str]:
    return [batch["id"] for batch in json.loads((ctx.out / "batch.json").read_text())["batches"]]


def deliver(root: Path, name: str, rows: list[dict[str, Any]]) -> str:
    path = root / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ingest(store_of(root), [path], IntakeConfig()).id


def comparison(number: int, domain: str = "helpfulness") -> dict[str, Any]:
    conversation = [{"role": "user", "content": f"question of a person {number}"}]
    return {"conversation": conversation, "chosen": "yes", "rejected": "no", "domain": domain}


def collected(root: Path) -> list[dict[str, Any]]:
    """Pairs of a preceding version on the built-in world, and the directory `collect` with them."""
    base = context(root, "base", "prepare", world=SMALL)
    prepare.run(base)
    pairs = [
        {
            "id": prompt.id,
            "conversation": prompt.messages,
            "responses": [
                {"text": f"the answer is {side}.", "version": side, "temperature": 1.0}
                for side in ("sft", "rlhf-v1")
            ],
            "domain": prompt.domain,
            "category": prompt.category,
        }
        for prompt in read_prompts(base.out / "prompts.jsonl")
    ]
    (root / "collect").mkdir()
    text = "".join(json.dumps(pair) + "\n" for pair in pairs)
    (root / "collect" / "pairs.jsonl").write_text(text)
    return pairs


def judged(pair: dict[str, Any]) -> dict[str, Any]:
    return {
        "conversation": pair["conversation"],
        "chosen": pair["responses"][0]["text"],
        "rejected": pair["responses"][1]["text"],
        "domain": pair["domain"],
    }


def test_a_split_version_takes_its_arrival_and_what_was_delivered(
    shared: Path, tmp_path: Path
) -> None:
    base = context(tmp_path, "base", "prepare", **real(shared))
    prepare.run(base)
    inputs = {"prepare": base.out}
    first = deliver(tmp_path, "monday", [comparison(number) for number in range(50)])
    v1 = context(tmp_path, "rlhf-v1", "intake", inputs, **real(shared))
    intake.run(v1)
    own, *delivered = taken(v1)
    assert delivered == [first]
    assert own != first
    # What comes later waits for the next version, also when the first runs once more.
    second = deliver(tmp_path, "tuesday", [comparison(number) for number in range(40, 80)])
    again = context(tmp_path, "rlhf-v1", "intake", inputs, **real(shared))
    intake.run(again)
    assert taken(again)[1:] == [first]
    inputs["intake/rlhf-v1"] = again.out
    v2 = context(tmp_path, "rlhf-v2", "intake", inputs, **real(shared))
    intake.run(v2)
    assert taken(v2)[1:] == [second]
    store = store_of(tmp_path)
    assert store.batch(second).report["reasons"] == {"duplicate_earlier": 10}
    assert {batch.id: batch.versions for batch in store.batches() if batch.versions} == {
        **dict.fromkeys(taken(again), ("rlhf-v1",)),
        **dict.fromkeys(taken(v2), ("rlhf-v2",)),
    }
    assert v2.metrics["leaked_prompts"] == 0
    # There are five arrivals: a sixth version lives on deliveries alone.
    third = deliver(tmp_path, "friday", [comparison(number) for number in range(100, 120)])
    v6 = context(tmp_path, "rlhf-v6", "intake", inputs, **real(shared))
    intake.run(v6)
    assert taken(v6) == [third]


def test_a_persons_verdict_stands_against_the_worlds(tmp_path: Path) -> None:
    pairs = collected(tmp_path)
    people = deliver(tmp_path, "people", [judged(pair) for pair in pairs[:10]])
    v1 = context(tmp_path, "rlhf-v1", "intake", {"collect": tmp_path / "collect"}, world=SMALL)
    intake.run(v1)
    own, *delivered = taken(v1)
    assert delivered == [people]
    store = store_of(tmp_path)
    reasons = store.batch(own).report["reasons"]
    same = {"duplicate_earlier", "conflict_earlier", "tie"}
    assert sum(reasons.get(name, 0) for name in same) >= 10
    ids = store.index([people, own])["id"]
    assert len(np.unique(ids)) == len(ids)


def test_the_programs_own_batch_can_be_withdrawn_too(tmp_path: Path) -> None:
    collected(tmp_path)
    inputs = {"collect": tmp_path / "collect"}
    v1 = context(tmp_path, "rlhf-v1", "intake", inputs, world=SMALL)
    intake.run(v1)
    store = store_of(tmp_path)
    (own,) = store.batches()
    event("withdrawn", store, own.id)
    with pytest.raises(DataError, match="was withdrawn by ana") as error:
        intake.run(v1)
    assert "align batches restore" in (error.value.remedy or "")
    # What people deliver takes its place, and it is not made once more beside that.
    rows = [comparison(n, "safety" if n % 2 else "helpfulness") for n in range(20)]
    people = deliver(tmp_path, "people", rows)
    intake.run(v1)
    assert taken(v1) == [people]
    event("restored", store, own.id)
    intake.run(v1)
    assert people in taken(v1)
    assert len(taken(v1)) == 2


def event(action: Any, store: PreferenceStore, batch: str) -> None:
    with store.writing():
        record(
            store.root,
            action,
            "batch",
            batch,
            label=batch,
            versions=["rlhf-v1"],
            reason="",
            by="ana",
        )


def test_without_pairs_of_its_own_a_version_lives_on_deliveries(tmp_path: Path) -> None:
    pairs = collected(tmp_path)
    inputs = {"collect": tmp_path / "collect"}
    people = deliver(tmp_path, "people", [judged(pair) for pair in pairs])
    v1 = context(tmp_path, "rlhf-v1", "intake", inputs, world=SMALL)
    intake.run(v1)  # every pair was judged by people: nothing is left for the simulated ones
    assert taken(v1) == [people]
    (tmp_path / "collect" / "pairs.jsonl").write_text("")
    later = deliver(tmp_path, "later", [comparison(number) for number in range(20)])
    v2 = context(tmp_path, "rlhf-v2", "intake", inputs, world=SMALL)
    intake.run(v2)
    assert taken(v2) == [later]
    v3 = context(tmp_path, "rlhf-v3", "intake", inputs, world=SMALL)
    with pytest.raises(DataError, match="no pairs were collected"):
        intake.run(v3)
    last = deliver(tmp_path, "last", [comparison(number) for number in range(30, 50)])
    intake.run(v3)
    assert taken(v3) == [last]


def test_a_batch_that_was_removed_by_hand_is_made_again(tmp_path: Path) -> None:
    collected(tmp_path)
    inputs = {"collect": tmp_path / "collect"}
    people = deliver(tmp_path, "people", [comparison(number) for number in range(20)])
    intake.run(context(tmp_path, "rlhf-v1", "intake", inputs, world=SMALL))
    store = store_of(tmp_path)
    own = next(batch for batch in store.batches() if batch.id != people)
    shutil.rmtree(own.directory)
    again = context(tmp_path, "rlhf-v1", "intake", inputs, world=SMALL)
    intake.run(again)
    assert taken(again) == [own.id, people]
    assert store.batch(own.id).digest == own.digest


def test_a_replaced_batch_of_a_stage_counts_for_nothing(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    path = tmp_path / "simulated.jsonl"
    rows = [comparison(number) for number in range(200)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    old = ingest(store, [path], IntakeConfig(heldout_share=0.3), against=[]).id
    store.assign("rlhf-v1", [old])
    same = deliver(tmp_path, "same", [*rows[:5], comparison(999)])
    assert store.batch(same).report["reasons"] == {"duplicate_earlier": 5}
    store.assign("rlhf-v1", [])  # the version was made again under other settings
    with pytest.raises(NothingNewError):
        deliver(tmp_path, "nothing", [comparison(999)])
    people = deliver(tmp_path, "people", rows)
    assert store.batch(people).report["rows"]["accepted"] == 200
    # The two were split apart from each other: held-out prompts of either are never trained on.
    both = [old, people]
    index = store.index(both)
    held = set(index["opening"][index["heldout"]].tolist())
    clash = held & set(index["opening"][~index["heldout"]].tolist())
    assert store.leaked(both) == len(clash) > 0
    for rows_left in (
        store.training(both),
        store.training([old], beside=both) + store.training([people], beside=both),
    ):
        assert len(rows_left) == 2 * (200 - len(held))
    assert len(store.training([old])) == 140
