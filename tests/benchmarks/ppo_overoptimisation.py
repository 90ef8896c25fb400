"""Gold reward against √KL for PPO on the built-in world, and where the guard stops it.

    python tests/benchmarks/ppo_overoptimisation.py --workspace DIR [--version rlhf-v5]

DIR is a workspace of the built-in world that is done up to the version (it is only read). Reward
models and guards are trained on disjoint halves of the version's comparisons; PPO climbs the
former from the version's fine-tuned policy with a small β and is not stopped. At every look at
held-out prompts a JSON line tells √KL, training reward, guard and gold; the last line tells where
gold peaks and which look early stopping by the guard would have kept.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from best_of_kl import Scene

from alignment.config.ppo import PPOConfig, StopConfig
from alignment.plan import build_plan
from alignment.preferences.prompts import read_prompts
from alignment.preferences.schema import DOMAINS
from alignment.sampling.mixture import draw_prompts
from alignment.seeds import derive_seed
from alignment.stages import reward as reward_stage
from alignment.stages.context import ProgramView, StageContext
from alignment.training.ppo.build import Builder
from alignment.training.ppo.forward import over_all
from alignment.training.ppo.guard import Guard, Watch
from alignment.training.ppo.scoring import Episode, PromptItem
from alignment.training.ppo.trainer import PPOTrainer

CPU = torch.device("cpu")


def train_judges(scene: Scene, version: str, share: float, folder: Path) -> dict[str, Path]:
    """Reward models and guards on disjoint shares of the comparisons: stage name → directory."""
    rewards = scene.program.rewards.model_copy(update={"guard_share": share})
    program = scene.program.model_copy(update={"rewards": rewards})
    plan = build_plan(scene.program.model_copy(update={"workspace": scene.workspace}))
    found: dict[str, Path] = {}
    for guard in (False, True):
        for domain in DOMAINS:
            node = next(n for n in plan if n.key == f"{version}/reward_{domain}")
            name = f"{'guard' if guard else 'reward'}_{domain}"
            inputs = {key: scene.stage(*source) for key, source in node.inputs.items()}
            if guard:
                inputs["reward"] = found[f"reward_{domain}"]
            context = StageContext(
                version=version,
                stage=name,
                config=ProgramView(program, reward_stage.READS),
                options={"domain": domain, **({"guard": True} if guard else {})},
                inputs=inputs,
                out=folder / name / "out",
                scratch=folder / name / "scratch",
                seed=derive_seed(0, name),
                workspace=folder,
            )
            for path in (context.out, context.scratch):
                path.mkdir(parents=True)
            preferences = folder / "preferences"
            if not preferences.exists():
                preferences.symlink_to((scene.workspace / "preferences").resolve())
            reward_stage.run(context)
            found[name] = context.out
    return found


class Looks:
    """Judges held-out answers by guards, and notes what is true of them."""

    def __init__(self, scene: Scene, prompts: Sequence[Any], items: Sequence[PromptItem]):
        self._world = scene.world
        self._prompts = {item.ids: prompt for item, prompt in zip(items, prompts, strict=True)}
        self.rows: list[dict[str, float]] = []
        self.every = 1

    def ready(self, trainer: PPOTrainer, proxy: Any, guard: Any, every: int) -> None:
        self._trainer, self._proxy, self._guard, self.every = trainer, proxy, guard, every

    def judge(self, episodes: Sequence[Episode]) -> np.ndarray:
        """The guards' scores (b,)."""
        roles, tokens = self._trainer.roles, [episode.tokens for episode in episodes]
        width = max(len(one.response) for one in tokens)
        seen = [
            over_all(role, tokens, width, temperature=1.0, limit=4096, device=CPU)
            for role in (roles.policy, roles.reference)
        ]
        kl = max(0.0, float((seen[0] - seen[1]).sum(1).mean()))
        gold = []
        for episode in episodes:
            prompt = self._prompts[episode.prompt.ids]
            truth = self._world.gold(prompt, episode.text, episode.finished)
            gold.append(getattr(truth, prompt.domain))
        scores = self._guard.judge(episodes)
        row = {
            "iteration": len(self.rows) * self.every,
            "sqrt_kl": math.sqrt(kl),
            "reward": float(self._proxy.judge(episodes).mean()),
            "guard": float(scores.mean()),
            "gold": float(np.mean(gold)),
            "gold_error": float(np.std(gold) / math.sqrt(len(gold))),
        }
        self.rows.append({name: round(value, 4) for name, value in row.items()})
        print(json.dumps(self.rows[-1]), flush=True)
        return scores


def verdict(rows: Sequence[dict[str, float]], patience: int) -> dict[str, Any]:
    """Where gold peaks, and what stopping by the guard keeps of that gain."""
    watch = Watch(StopConfig(patience=patience))
    stopped = None
    for row in rows:
        watch.look(int(row["iteration"]), row["guard"])
        if watch.reason(0.0) is not None:
            stopped = int(row["iteration"])
            break
    peak = max(rows, key=lambda row: row["gold"])
    kept = next(row for row in rows if row["iteration"] == watch.best_iteration)
    gain = peak["gold"] - rows[0]["gold"]
    return {
        "peak": {name: peak[name] for name in ("iteration", "sqrt_kl", "gold")},
        "kept": {name: kept[name] for name in ("iteration", "sqrt_kl", "gold")},
        "stopped_after": stopped,
        "last": {name: rows[-1][name] for name in ("iteration", "sqrt_kl", "gold")},
        "kept_of_peak": round(kept["gold"] / peak["gold"], 4),
        "kept_of_gain": round((kept["gold"] - rows[0]["gold"]) / gain, 4) if gain > 0 else None,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--version", default="rlhf-v5")
    parser.add_argument("--start", help="version whose policy PPO starts from, e.g. sft")
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--heldout", type=int, default=192)
    parser.add_argument("--beta", type=float, default=0.05)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--out", type=Path, help="write the rows there as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    scene = Scene(options.workspace, options.version, 40)
    start = scene.stage(options.start or options.version, "finetune") / "model"
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        stages = train_judges(scene, options.version, options.share, folder)
        config = PPOConfig.model_validate(
            {
                **scene.program.ppo.model_dump(),
                "iterations": options.iterations,
                "learning_rate": options.learning_rate,
                "kl": {"coefficient": options.beta},
                "stop": {"guard_every": options.every, "patience": None, "keep": "last"},
            }
        )
        rewards, guards = (
            {domain: stages[f"{kind}_{domain}"] for domain in DOMAINS}
            for kind in ("reward", "guard")
        )
        build = Builder(start, rewards, config, "float32", CPU, 0, print)
        renderer = scene.renderer
        proxy = build.reward(scene.program.combine, renderer)
        guard = build.reward(scene.program.combine, renderer, guards)
        held = draw_prompts(read_prompts(scene.prepare / "eval_prompts.jsonl"), options.heldout, 1)
        pool = read_prompts(scene.prepare / "prompts.jsonl")

        def item(prompt: Any) -> PromptItem:
            ids = tuple(renderer.prompt(prompt.messages))
            return PromptItem(ids, tuple(prompt.messages), prompt.tag_safety)

        items = [item(prompt) for prompt in held]
        looks = Looks(scene, held, items)
        trainer = PPOTrainer(
            build.roles(),
            renderer,
            [item(prompt) for prompt in pool],
            proxy,
            config,
            seed=0,
            guard=Guard(items, looks.judge, "guard"),
        )
        looks.ready(trainer, proxy, guard, options.every)
        trainer.train()
    found = verdict(looks.rows, patience=3)
    print(json.dumps(found))
    if options.out is not None:
        options.out.write_text(json.dumps({"rows": looks.rows, **found}, indent=2))


if __name__ == "__main__":
    main()
