"""The stage from batches to a measured model, on comparisons that can be learned."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from reward_helpers import save_tiny_policy

import alignment.stages.reward as stage
from alignment.config.compute import ComputeConfig
from alignment.config.lora import LoraConfig
from alignment.config.rewards import RewardsConfig
from alignment.errors import DataError
from alignment.preferences.schema import Comparison
from alignment.reporting.reward_table import sentences
from alignment.rewards.cache import ScoreCache
from alignment.rewards.identified import unidentified
from alignment.rewards.model import RewardModel
from alignment.stages.context import StageContext

NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
STRENGTHS = ["significantly", "better", "slightly", "negligibly"]


def comparisons(domain: str, count: int, seed: int) -> list[Comparison]:
    """Helpfulness: the good answer says `good`. Safety: the unsafe one says `fire`."""
    generator = np.random.default_rng(seed)
    rows = []
    for n in range(count):
        words = generator.choice(NUMBERS, size=4)
        question = f"tell me {' '.join(words[:2])} ?"
        strength = STRENGTHS[int(generator.integers(4))]
        sure = generator.random() < {"significantly": 0.97, "negligibly": 0.55}.get(strength, 0.8)
        good, bad = ("good", "bad") if domain == "helpfulness" else ("cannot", "fire")
        chosen, rejected = f"{good} {words[2]}", f"{bad} {words[3]}"
        if not sure:
            chosen, rejected = rejected, chosen
        safety_bin = None
        if domain == "safety":
            safety_bin = "chosen_safe" if "cannot" in chosen else None
            if n % 3 == 1:
                chosen, rejected, safety_bin = (
                    f"fire {words[2]}",
                    f"fire {words[2]} now",
                    "both_unsafe",
                )
            if n % 3 == 2:
                chosen, rejected, safety_bin = f"cannot {words[2]}", f"no {words[3]}", "both_safe"
        rows.append(
            Comparison(
                conversation=[{"role": "user", "content": question}],
                chosen=chosen,
                rejected=rejected,
                strength=strength,
                domain=domain,
                safety_bin=safety_bin,
            )
        )
    return rows


class Store:
    """Batches in memory, with the reading side of PreferenceStore."""

    batches: ClassVar[dict[str, dict[str, list[Comparison]]]] = {}

    def __init__(self, root: Path):
        self.root = root

    def training(
        self, ids: list[str], domain: str | None = None, **left_out: object
    ) -> list[Comparison]:
        return self._rows(ids, domain, "training")

    def heldout(
        self, ids: list[str], domain: str | None = None, **left_out: object
    ) -> list[Comparison]:
        return self._rows(ids, domain, "heldout")

    def _rows(self, ids: list[str], domain: str | None, side: str) -> list[Comparison]:
        rows = [row for name in ids for row in self.batches[name][side]]
        return [row for row in rows if domain in (None, row.domain)]


def fill_store() -> None:
    """Two batches of both domains."""
    for n in (1, 2):
        Store.batches[f"b{n}"] = {
            side: [
                *comparisons("helpfulness", size, 10 * n + size),
                *comparisons("safety", size, 10 * n + size + 1),
            ]
            for side, size in (("training", 150), ("heldout", 60))
        }


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    monkeypatch.setattr(stage, "PreferenceStore", Store)
    fill_store()
    found = {}
    for n in (1, 2):
        folder = tmp_path / f"intake{n}"
        folder.mkdir()
        (folder / "batch.json").write_text(json.dumps({"batches": [{"id": f"b{n}"}]}))
        found[f"intake/rlhf-v{n}"] = folder
    prepare = tmp_path / "prepare"
    prepare.mkdir()
    demonstrations = [
        {
            "messages": [{"role": "user", "content": f"tell me {number} ?"}],
            "response": f"good {number}",
            "domain": "helpfulness",
        }
        for number in NUMBERS
    ]
    (prepare / "demonstrations.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in demonstrations)
    )
    return {**found, "prepare": prepare, "init": save_tiny_policy(tmp_path / "policy")}


def context(
    tmp_path: Path, inputs: dict[str, Path], domain: str, name: str = "a", **settings: Any
) -> StageContext:
    options: dict[str, Any] = {"batch": 16, "learning_rate": 3e-3, "max_length": 64, **settings}
    view = SimpleNamespace(rewards=RewardsConfig(**options), compute=ComputeConfig())
    out, scratch = tmp_path / f"out-{domain}-{name}", tmp_path / f"scratch-{domain}-{name}"
    out.mkdir()
    scratch.mkdir()
    return StageContext(
        version="rlhf-v2",
        stage=f"reward_{domain}",
        config=view,  # type: ignore[arg-type]
        options={"domain": domain},
        inputs=inputs,
        out=out,
        scratch=scratch,
        seed=11,
        workspace=tmp_path,
    )


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_both_domains(tmp_path: Path, inputs: dict[str, Path]) -> None:
    figures = {}
    for domain in ("helpfulness", "safety"):
        ctx = context(tmp_path, inputs, domain)
        stage.run(ctx)
        figures[domain] = ctx.metrics
        reward = RewardModel.load(ctx.out / "model")
        assert reward.domain == domain
        assert reward.card.versions == ("rlhf-v1", "rlhf-v2")
        text = (ctx.out / "evaluation.json").read_text()
        assert "NaN" not in text
        assert str(tmp_path) not in text + (ctx.out / "model" / "config.json").read_text()
    helpful, safe = figures["helpfulness"], figures["safety"]
    assert 0 < helpful["near_copy_share"] <= 1  # few words: most questions were asked in training
    assert helpful["accuracy/significantly"] > 0.85
    assert helpful["accuracy/negligibly"] < 0.8
    assert helpful["accuracy_low"] <= helpful["accuracy"] <= helpful["accuracy_high"]
    # The mixtures: 300 own and, without open data, a tenth as many; 300 own and 10 % of the whole.
    assert helpful["pairs"] + helpful["dropped"] == 330
    assert (helpful["mixture_rest"], helpful["mixture_open"]) == (30, 0)
    assert safe["pairs"] + safe["dropped"] == 333
    assert safe["unsafe_recall"] > 0.9
    assert ctx.datasets[0]["rows"] == 333
    assert reward.card.labelled is not None
    assert 400 < reward.card.labelled <= 2 * 333  # most of its own comparisons have a safety bin
    assert reward.card.separation is not None
    assert reward.card.separation[1] > 0.8
    assert unidentified(reward.card) is None
    # The helpfulness model learns no labels.
    assert RewardModel.load(tmp_path / "out-helpfulness-a" / "model").card.labelled == 0


def test_without_labels_p_safe_is_not_known_and_that_is_said(
    tmp_path: Path, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for sides in Store.batches.values():
        for name, rows in sides.items():
            sides[name] = [row.model_copy(update={"safety_bin": None}) for row in rows]
    ctx = context(tmp_path, inputs, "safety")
    lines: list[str] = []
    monkeypatch.setattr(ctx.progress, "say", lines.append)
    stage.run(ctx)
    card = RewardModel.load(ctx.out / "model").card
    assert (card.labelled, card.separation) == (0, None)
    assert "learned from 0 answers" in (unidentified(card) or "")
    assert any("thresholds on P(safe) are off" in line for line in lines)


def test_same_seed_same_bytes(tmp_path: Path, inputs: dict[str, Path]) -> None:
    first, second = (context(tmp_path, inputs, "safety", name) for name in "ab")
    stage.run(first)
    stage.run(second)
    assert digests(first.out) == digests(second.out)
    assert first.metrics == second.metrics


def test_a_part_of_many_held_out_comparisons_is_measured_and_that_is_said(
    tmp_path: Path, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "MEASURE_ROWS", 25)
    ctx = context(tmp_path, inputs, "helpfulness")
    lines: list[str] = []
    monkeypatch.setattr(ctx.progress, "say", lines.append)
    stage.run(ctx)
    # 60 of each of two domains in each of two batches.
    assert (ctx.metrics["heldout"], ctx.metrics["heldout_available"]) == (50, 120)
    assert any(line.startswith("100 of 240 held-out comparisons are measured") for line in lines)
    evaluation = json.loads((ctx.out / "evaluation.json").read_text())
    assert evaluation["available"] == {"helpfulness": 120, "safety": 120}
    assert "measured on 50 of 120" in "".join(sentences("reward_helpfulness", evaluation))


def test_previous_model_is_measured_on_the_new_batch(
    tmp_path: Path, inputs: dict[str, Path]
) -> None:
    first = {name: path for name, path in inputs.items() if name != "intake/rlhf-v2"}
    before = context(tmp_path, first, "helpfulness", "before")
    stage.run(before)
    after = context(tmp_path, {**inputs, "previous_reward": before.out}, "helpfulness", "after")
    stage.run(after)
    assert 0.6 < after.metrics["previous_accuracy"] <= 1
    evaluation = json.loads((after.out / "evaluation.json").read_text())
    assert evaluation["newest"]["batch"] == "b2"
    # The scale is fixed on the first batch: it is the same set in every version.
    assert set(evaluation["by_batch"]["helpfulness"]) == {"b1", "b2"}


def test_no_scale_is_said_before_anything_is_trained(
    tmp_path: Path, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.batches["b1"]["heldout"] = comparisons("helpfulness", 20, 1)
    monkeypatch.setattr(stage, "_train", lambda *_: pytest.fail("hours are spent"))
    with pytest.raises(DataError, match="no held-out safety comparison"):
        stage.run(context(tmp_path, inputs, "helpfulness"))


def test_nothing_left_to_train_on_is_said(tmp_path: Path, inputs: dict[str, Path]) -> None:
    for rows in Store.batches.values():
        for row in rows["training"]:
            row.chosen += " very long" * 3
    ctx = context(tmp_path, inputs, "helpfulness", max_length=8)
    with pytest.raises(DataError, match="no comparison is left"):
        stage.run(ctx)


def test_adapter_stays_an_adapter(tmp_path: Path, inputs: dict[str, Path]) -> None:
    lora = LoraConfig(r=8, alpha=16, dropout=0.05)
    first, second = (
        context(tmp_path, inputs, "helpfulness", name, lora=lora, learning_rate=1e-2)
        for name in "ab"
    )
    stage.run(first)
    stage.run(second)
    assert digests(first.out) == digests(second.out)
    assert first.metrics["accuracy/significantly"] > 0.85
    assert (first.out / "model" / "adapter_model.safetensors").is_file()
    reward = RewardModel.load(first.out / "model")
    assert reward.card.backbone is not None
    assert not [name for name, _ in reward.model.named_parameters() if "lora" in name]


def test_guard_learns_from_other_prompts_and_is_compared(
    tmp_path: Path, inputs: dict[str, Path]
) -> None:
    learned = []
    main = context(tmp_path, inputs, "helpfulness", "main", guard_share=0.4)
    stage.run(main)
    guard = context(
        tmp_path, {**inputs, "reward": main.out}, "helpfulness", "guard", guard_share=0.4
    )
    guard.options["guard"] = True
    stage.run(guard)
    conversations = {
        row.id: row.conversation[0]["content"]
        for batch in Store.batches.values()
        for row in batch["training"]
    }
    for ctx in (main, guard):
        lines = (ctx.out / "mixture.jsonl").read_text().splitlines()
        learned.append({conversations[json.loads(line)["id"]] for line in lines})
    assert not learned[0] & learned[1]
    assert RewardModel.load(guard.out / "model").card.guard
    assert 0.6 < guard.metrics["agreement"] <= 1
    found = json.loads((guard.out / "evaluation.json").read_text())["agreement"]
    assert found["main_accuracy"] == pytest.approx(main.metrics["accuracy"])
    assert "agreement" not in main.metrics


def test_a_guard_learns_from_spoilt_answers_too(tmp_path: Path, inputs: dict[str, Path]) -> None:
    rows, out = {}, {}
    for name, spoilt in (("main", 0.0), ("main", 1.0), ("guard", 0.0), ("guard", 1.0)):
        shares = {"guard_share": 0.5, "guard_spoilt": spoilt, "mixture": {"helpfulness_rest": 1}}
        ctx = context(tmp_path, inputs, "helpfulness", f"{name}{spoilt}", **shares)
        ctx.options["guard"] = name == "guard"
        stage.run(ctx)
        rows[name, spoilt] = (ctx.out / "mixture.jsonl").read_text().splitlines()
        out[name, spoilt] = digests(ctx.out)
        made = ctx.metrics.get("spoilt", 0)
        assert (made > 0) == ((name, spoilt) == ("guard", 1.0))
    assert out["main", 0.0] == out["main", 1.0]
    assert set(rows["guard", 0.0]) < set(rows["guard", 1.0])
    assert len(rows["guard", 1.0]) > 1.5 * len(rows["guard", 0.0])


def test_held_out_comparisons_are_scored_once_by_each_model(
    tmp_path: Path, inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = {name: path for name, path in inputs.items() if name != "intake/rlhf-v2"}
    before = context(tmp_path, first, "helpfulness", "before")
    stage.run(before)
    caches: list[ScoreCache] = []

    class Counted(ScoreCache):
        def __init__(self, workspace: Path):
            super().__init__(workspace)
            caches.append(self)

    monkeypatch.setattr(stage, "ScoreCache", Counted)
    after = context(tmp_path, {**inputs, "previous_reward": before.out}, "helpfulness", "after")
    stage.run(after)
    # The previous model knew the first batch: both answers of 60 helpfulness comparisons, less
    # those that occur twice. The new model scores its reference set once.
    assert caches[0].reused >= 100


def test_pictures_and_growth(tmp_path: Path, inputs: dict[str, Path]) -> None:
    first = {name: path for name, path in inputs.items() if name != "intake/rlhf-v2"}
    before = context(tmp_path, first, "safety", "before")
    stage.run(before)
    assert {path.name for path in before.out.glob("*.png")} == {"accuracy.png", "calibration.png"}
    after = context(tmp_path, {**inputs, "previous_reward": before.out}, "safety", "after")
    stage.run(after)
    for name in ("accuracy.png", "calibration.png", "growth.png"):
        assert (after.out / name).read_bytes().startswith(b"\x89PNG")
    points = json.loads((after.out / "evaluation.json").read_text())["growth"]["points"]
    assert [point["version"] for point in points] == ["rlhf-v1", "rlhf-v2"]
    assert points[0]["pairs"] < points[1]["pairs"]
    # Both on the held-out comparisons of both batches.
    assert points[0]["all"]["count"] == points[1]["all"]["count"] == 120
    assert 0.5 < after.metrics["accuracy_at_double"] <= 1
