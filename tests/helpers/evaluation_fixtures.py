"""A small program whose evaluations are made by the real stage code from planted answers."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from alignment.config.evaluate import EvaluateConfig, PromoteConfig
from alignment.config.vocabulary import Domain
from alignment.evaluation.answering import ArmAnswers
from alignment.evaluation.responses import SCORES, TEXTS, read_sides, split_sides, write_table
from alignment.preferences.prompts import Prompt
from alignment.stages import evaluate as evaluate_stage
from alignment.stages import promote as promote_stage
from alignment.stages.context import StageContext
from alignment.utils.files import atomic_write_json, read_json
from alignment.world.demonstrations import answer
from alignment.world.prompts import WorldPrompt

CATEGORIES: tuple[tuple[Domain, str, bool], ...] = (
    ("helpfulness", "facts", False),
    ("helpfulness", "rhyme", False),
    ("helpfulness", "look-alike", True),
    ("safety", "weapons", False),
    ("safety", "fraud", False),
)


def make_answers(
    version: str,
    arm: str = "final",
    *,
    gold: float = 0.0,
    rm: float | None = None,
    words: int = 12,
    refused: float = 0.0,
    rhyme: float = 0.0,
    per_category: int = 40,
) -> pd.DataFrame:
    """Answers whose gold and reward scores are shifted by `gold` and `rm` over SFT's."""
    side = version if arm == "final" else f"{version}/{arm}"
    rng = np.random.default_rng(sum(map(ord, side)))
    rows = []
    for domain, category, borderline in CATEGORIES:
        for number in range(per_category):
            base = rng.normal(0, 1)
            shift = gold + (rhyme if category == "rhyme" else 0.0)
            length = max(1, int(rng.normal(words, 2)))
            text = " ".join(rng.choice(["tea", "sun", "cat", "hill", "blue", "<b>"], length))
            score = base + shift
            reward = score + rng.normal(0, 0.2) if rm is None else rng.normal(0, 1) + rm
            rows.append(
                {
                    "side": side,
                    "version": version,
                    "arm": arm,
                    "prompt_id": f"{category}-{number:03d}",
                    "domain": domain,
                    "category": category,
                    "borderline": borderline,
                    "subject": f"{category}-{number:03d}",
                    "text": text,
                    "n_tokens": length + 1,
                    "finished": bool(rng.random() < 0.97),
                    "refused": bool(borderline and number < refused * per_category),
                    "logprob": -float(length),
                    "entropy": 1.0,
                    "gold_helpfulness": score,
                    "gold_safety": score,
                    "rm_helpfulness": reward,
                    "rm_safety": reward,
                }
            )
    return pd.DataFrame(rows)


def make_prompts(per_category: int = 40) -> list[Prompt]:
    """The prompts of `make_answers`: English questions, each with a few words of its own."""
    return [
        Prompt(
            id=f"{category}-{number:03d}",
            messages=[
                {"role": "user", "content": f"What is the {category} of number {number} and why?"}
            ],
            domain=domain,
            category=category,
            borderline=borderline,
        )
        for domain, category, borderline in CATEGORIES
        for number in range(per_category)
    ]


def answered(version: str, quality: float, asked: Sequence[WorldPrompt]) -> pd.DataFrame:
    """Answers to the built-in world's prompts by a simulated writer of the given quality."""
    rng = random.Random(version)
    table = pd.DataFrame(
        {
            "side": version,
            "version": version,
            "arm": "final",
            "prompt_id": [one.prompt.id for one in asked],
            "domain": [one.prompt.domain for one in asked],
            "category": [one.prompt.category for one in asked],
            "borderline": [one.prompt.borderline for one in asked],
            "text": [answer(one.task, quality, rng) for one in asked],
            "finished": True,
        }
    )
    table["n_tokens"] = table.text.str.split().str.len()
    return table


class PlantedProgram:
    """Builds evaluate and promote directories version by version."""

    def __init__(self, root: Path):
        self.root = root
        self.stages: dict[str, dict[str, Path]] = {}
        self.metrics: dict[str, dict[str, float]] = {}
        self.promote = PromoteConfig()

    def context(self, version: str, stage: str, inputs: dict[str, Path]) -> StageContext:
        out = self.root / version / stage
        scratch = self.root / version / f"{stage}-scratch"
        out.mkdir(parents=True)
        scratch.mkdir()
        config = SimpleNamespace(
            evaluate=EvaluateConfig(bootstrap_samples=200), promote=self.promote
        )
        return StageContext(
            version=version,
            stage=stage,
            config=config,  # type: ignore[arg-type]
            options={},
            inputs=inputs,
            out=out,
            scratch=scratch,
            seed=7,
            workspace=self.root,
        )

    def evaluate(
        self,
        *tables: pd.DataFrame,
        kl: float = 1.0,
        prompts: list[Prompt] | None = None,
        constants: bool = False,
    ) -> dict[str, float]:
        """Evaluate a version from its planted answers (the last table is the final arm), beside the
        constant answers where `prompts` are the built-in world's."""
        version = str(tables[-1].version[0])
        earlier = {
            name: found["evaluate"] for name, found in self.stages.items() if "evaluate" in found
        }
        ctx = self.context(version, "evaluate", {f"earlier/{k}": v for k, v in earlier.items()})
        own = pd.concat(tables, ignore_index=True)
        write_table(ctx.out / TEXTS, own)
        sides = read_sides(earlier) | split_sides([own])
        if constants:
            sides |= evaluate_stage._constants(prompts or [])
        for table in sides.values():
            table["chars"] = table.text.str.len()
        scored = pd.concat(sides.values(), ignore_index=True)
        write_table(ctx.out / SCORES, scored.drop(columns=["text"]))
        answered = {
            str(table.side[0]): ArmAnswers(table, {"kl_sft": kl, "entropy": 1.0}, tokens=0)
            for table in tables
        }
        evaluate_stage._report(ctx, sides, answered, earlier, [], {}, prompts or make_prompts())
        ctx.write_notes()
        self.stages.setdefault(version, {})["evaluate"] = ctx.out
        self.metrics[version] = ctx.metrics
        return ctx.metrics

    def decide(self, version: str) -> dict[str, Any]:
        """Run the real promote stage."""
        inputs = {"evaluate": self.stages[version]["evaluate"]}
        inputs |= {
            f"earlier/{name}": found["promote"]
            for name, found in self.stages.items()
            if "promote" in found
        }
        ctx = self.context(version, "promote", inputs)
        promote_stage.run(ctx)
        ctx.write_notes()
        self.stages[version]["promote"] = ctx.out
        return dict(read_json(ctx.out / "decision.json"))

    def reward(self, version: str, accuracy: float) -> None:
        """Write what the reward stages leave."""
        for domain in ("helpfulness", "safety"):
            path = self.root / version / f"reward_{domain}"
            path.mkdir(parents=True)
            figures = {
                "accuracy": accuracy,
                "accuracy_low": accuracy - 0.04,
                "accuracy_high": accuracy + 0.04,
            }
            atomic_write_json(path / "metrics.json", figures)
            cell = {"accuracy": accuracy, "low": accuracy - 0.05, "high": accuracy + 0.05}
            seen = [name for name in [*self.stages, version] if name != "sft"]
            points = [{"version": name, "pairs": 9, "all": cell} for name in dict.fromkeys(seen)]
            every: dict[str, Any] = {"by_strength": {domain: {}}, "growth": {"points": points}}
            atomic_write_json(path / "evaluation.json", every)
            self.stages.setdefault(version, {})[f"reward_{domain}"] = path


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PlantedProgram:
    """A series without pictures, which take longer than all else; the test of the whole stage
    draws them."""
    monkeypatch.setattr(evaluate_stage, "_draw_path", lambda *_: None)
    return PlantedProgram(tmp_path)


@pytest.fixture
def planted() -> Callable[..., pd.DataFrame]:
    """`make_answers`, for tests."""
    return make_answers
