"""Gold reward against √KL for best-of-n on the built-in world (Gao et al. 2022, Fig 1).

    python tests/benchmarks/best_of_kl.py --workspace DIR [--version rlhf-v1] [--out PICTURE.png]

DIR is a workspace of the built-in world that is done up to the version. The policy that sampled for
it answers evaluation prompts 64 times; n answers are drawn from the 64 without repetition, and the
best by the version's reward models is looked up in the gold scores (exact mean over all subsets).
Its distance is given by log n − (n−1)/n, an upper bound. Then the policy is fine-tuned on the best
of n for a few n, as the `finetune` stage does, and its distance is measured.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from alignment.config.load import for_version
from alignment.evaluation.divergence import measure
from alignment.inference.engine import TransformersEngine, sample_seeds
from alignment.inference.types import Sample, SamplingSettings
from alignment.models.chat_renderer import ChatRenderer, Tokens
from alignment.models.load import load_policy, load_tokenizer
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.workspace import kept_program
from alignment.preferences.prompts import Prompt, read_prompts
from alignment.sampling.best_of import kl_bound, order_weights
from alignment.sampling.prompt_sampling import draw_prompts
from alignment.sampling.reward_scoring import AnswerToScore, RewardScorer
from alignment.stages.sample import sampler_version
from alignment.training.policy import trainable_policy
from alignment.training.sft import Example, finetune
from alignment.utils.metrics_log import Series
from alignment.utils.statistics import bootstrap_mean
from alignment.world.gold import gold

COUNTS = (1, 2, 4, 8, 16, 32, 64)


class Scene:
    """A workspace's policy, reward models and world."""

    def __init__(self, workspace: Path, version: str, new_tokens: int):
        program = kept_program(workspace)
        self.program = for_version(program, version)
        self.settings = SamplingSettings(max_new_tokens=new_tokens, batch_size=512)
        self.ledger, self.workspace = Ledger(workspace), workspace
        self.prepare = self.stage("base", "prepare")
        self.start = self.stage(sampler_version(version), "finetune") / "model"
        self.renderer = ChatRenderer(load_tokenizer(self.start))
        self.scorer = RewardScorer.load(
            self.stage(version, "reward_helpfulness"),
            self.stage(version, "reward_safety"),
            self.program.combine,
            self.program.compute,
        )

    def stage(self, version: str, stage: str) -> Path:
        """The newest committed directory of a stage."""
        manifest = self.ledger.current(version, stage)
        assert manifest is not None, f"{version}/{stage} is not done"
        return self.ledger.committed_dir(version, stage, manifest.fingerprint)

    def answers(self, model: Any, prompts: list[Prompt], n: int, seed: int) -> list[list[Sample]]:
        """n answers to each prompt."""
        seeds = sample_seeds(seed, [prompt.id for prompt in prompts], n)
        tokens = [self.renderer.prompt(prompt.messages) for prompt in prompts]
        return TransformersEngine(model, self.renderer).sample(tokens, seeds, self.settings)

    def rewards(self, prompts: list[Prompt], drawn: list[list[Sample]]) -> np.ndarray:
        """[prompts, n] combined rewards."""
        rows = [
            AnswerToScore(prompt, one.text, one.finished)
            for prompt, group in zip(prompts, drawn, strict=True)
            for one in group
        ]
        return self.scorer.score(rows).reward.reshape(len(prompts), -1)

    def gold(self, prompts: list[Prompt], drawn: list[list[Sample]]) -> np.ndarray:
        """[prompts, n] gold scores on the prompt's own axis."""
        found = []
        for prompt, group in zip(prompts, drawn, strict=True):
            scores = [gold(prompt.messages, one.text, one.finished) for one in group]
            found.append([getattr(score, prompt.domain) for score in scores])
        return np.array(found)


def of_best(rewards: np.ndarray, gold: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Expected reward and gold of the best of n by reward, [prompts] each."""
    order = np.argsort(rewards, axis=1, kind="stable")
    weights = order_weights(rewards.shape[1], n, n)
    return tuple(np.take_along_axis(x, order, axis=1) @ weights for x in (rewards, gold))  # type: ignore[return-value]


def tuned(scene: Scene, pool: list[Prompt], drawn: list[list[Sample]], chosen: np.ndarray) -> Any:
    """The policy after fine-tuning on one chosen answer a prompt."""
    config = scene.program.finetune.rejection
    model = trainable_policy(scene.start, config.lora, seed=0)
    examples = [
        Example(prompt.messages, group[place].text, group[place].finished)
        for prompt, group, place in zip(pool, drawn, chosen.tolist(), strict=True)
        if group[place].text.strip()
    ]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        series = Series(scratch / "series.jsonl")
        finetune(model, scene.renderer, examples, config, seed=0, scratch=scratch, series=series)
    return model.eval()


def main() -> None:
    """See the module; prints a JSON line a point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--version", default="rlhf-v1")
    parser.add_argument("--prompts", type=int, default=240, help="evaluation prompts")
    parser.add_argument("--pool", type=int, default=384, help="prompts to fine-tune on")
    parser.add_argument("--tuned", type=int, nargs="*", default=[1, 4, 16, 64])
    parser.add_argument("--new-tokens", type=int, default=40)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    scene = Scene(options.workspace, options.version, options.new_tokens)
    every = read_prompts(scene.prepare / "eval_prompts.jsonl")
    prompts = draw_prompts(every, options.prompts, 1)
    policy = load_policy(scene.start)
    drawn = scene.answers(policy, prompts, max(COUNTS), seed=2)
    rewards, gold = scene.rewards(prompts, drawn), scene.gold(prompts, drawn)
    rows = []
    for n in COUNTS:
        reward, true = of_best(rewards, gold, n)
        rows.append(_row("best of n", n, kl_bound(n), reward, true))
    peak = max(rows, key=lambda row: float(row["gold"]))
    print(json.dumps({"over_optimisation_begins_at_n": peak["n"], "sqrt_kl": peak["sqrt_kl"]}))
    pool = draw_prompts(read_prompts(scene.prepare / "prompts.jsonl"), options.pool, 3)
    candidates = scene.answers(policy, pool, max(COUNTS), seed=4)
    scored = scene.rewards(pool, candidates)
    for n in options.tuned:
        model = tuned(scene, pool, candidates, scored[:, :n].argmax(axis=1))
        found = scene.answers(model, prompts, 4, seed=5)
        items = [
            Tokens(scene.renderer.prompt(prompt.messages), one.token_ids)
            for prompt, group in zip(prompts, found, strict=True)
            for one in group
        ]
        kl = measure(model, {"start": policy}, items, pad=scene.renderer.pad).references["start"]
        measured = float(kl.exact.mean())
        reward = scene.rewards(prompts, found).mean(axis=1)
        true = scene.gold(prompts, found).mean(axis=1)
        rows.append(_row("fine-tuned on best of n", n, measured, reward, true))
    if options.out is not None:
        _draw(rows, options.out)


def _row(kind: str, n: int, kl: float, reward: np.ndarray, gold: np.ndarray) -> dict[str, Any]:
    interval = bootstrap_mean(gold, seed=0)
    row = {
        "kind": kind,
        "n": n,
        "kl": round(kl, 3),
        "kl_is": "upper bound" if kind == "best of n" else "measured",
        "sqrt_kl": round(math.sqrt(kl), 3),
        "reward": round(float(reward.mean()), 4),
        "gold": round(float(gold.mean()), 4),
        "gold_low": round(interval.low, 4),
        "gold_high": round(interval.high, 4),
    }
    print(json.dumps(row), flush=True)
    return row


def _draw(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, 2), ("reward", "gold"), strict=True):
        for kind, marker in (("best of n", "o"), ("fine-tuned on best of n", "s")):
            part = [row for row in rows if row["kind"] == kind]
            distances = [row["sqrt_kl"] for row in part]
            axes.plot(distances, [row[name] for row in part], marker=marker, label=kind)
            for row in part:
                place = (row["sqrt_kl"], row[name])
                axes.annotate(f"n={row['n']}", place, xytext=(4, -10), textcoords="offset points")
            if name == "gold":
                low, high = ([row[f"gold_{side}"] for row in part] for side in ("low", "high"))
                axes.fill_between(distances, low, high, alpha=0.15, linewidth=0)
        axes.set_xlabel("√KL (best of n: upper bound; fine-tuned: measured)")
        axes.set_ylabel({"reward": "combined reward", "gold": "gold score"}[name])
        axes.margins(x=0.12)
        axes.legend()
    figure.savefig(path, dpi=120, metadata={"Software": None})


if __name__ == "__main__":
    main()
