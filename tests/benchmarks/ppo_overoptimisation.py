"""Gold reward against √KL for PPO and best-of-n on the built-in world, and where guards stop PPO.

    python tests/benchmarks/ppo_overoptimisation.py --workspace DIR [--version rlhf-v5]
        [--best-of 64] [--picture PICTURE.png]

DIR is a workspace of the built-in world that is done up to the version (it is only read). Reward
models and guards are trained on disjoint halves of the version's comparisons, the guards twice:
plainly and with spoilt answers (`rewards.guard_spoilt`). PPO climbs the reward models from the
policy of `--start` and is not stopped. Gold is taken on the prompt's own axis, which is what the
piecewise reward stands for. At every look at held-out prompts a JSON line tells √KL, training
reward, guards, the loss on held-out texts and gold; with `--best-of` the best of n answers of the
start, by the same reward models, stand beside. The last lines tell where gold peaks and which look
each rule would have kept: either guard alone, with `ppo.stop.confirm`, and with
`ppo.stop.forgetting`.
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
from overoptimisation import GUARDS, best_of_rows, draw, verdicts

from alignment.config.ppo import PPOConfig, StopConfig
from alignment.config.rewards import CombineConfig
from alignment.config.vocabulary import DOMAINS
from alignment.models.chat_renderer import Tokens
from alignment.pipeline.approval import Decisions
from alignment.pipeline.plan import build_plan
from alignment.preferences.prompts import Prompt, read_prompts
from alignment.preferences.stop_set import STOP_TEXTS
from alignment.sampling.prompt_sampling import draw_prompts
from alignment.stages import reward as reward_stage
from alignment.stages.context import ProgramView, StageContext
from alignment.training.ppo.early_stopping import StopSet
from alignment.training.ppo.forward import passes, table
from alignment.training.ppo.scoring import CombinedReward, Episode, PromptItem
from alignment.training.ppo.setup import Builder
from alignment.training.ppo.trainer import PPOTrainer
from alignment.utils.json_lines import read_jsonl
from alignment.utils.seeds import derive_seed
from alignment.world.build import build as build_world
from alignment.world.gold import gold

CPU = torch.device("cpu")


def train_judges(
    scene: Scene, version: str, share: float, spoilt: float, seed: int, folder: Path
) -> dict[str, dict[str, Path]]:
    """Reward models and both kinds of guards: kind → domain → directory.

    Args:
        share: of the comparisons, for the guards alone.
        spoilt: see `rewards.guard_spoilt`.
    """
    program = scene.program.model_copy(update={"workspace": scene.workspace})
    plan = build_plan(program, Decisions.load(program))
    (folder / "preferences").symlink_to((scene.workspace / "preferences").resolve())
    found: dict[str, dict[str, Path]] = {}
    for kind in ("reward", *GUARDS):
        settings = {"guard_share": share, "guard_spoilt": spoilt if kind == "spoilt guard" else 0.0}
        rewards = scene.program.rewards.model_copy(update=settings)
        program = scene.program.model_copy(update={"rewards": rewards})
        found[kind] = {}
        for domain in DOMAINS:
            node = next(n for n in plan if n.key == f"{version}/reward_{domain}")
            inputs = {key: scene.stage(*source) for key, source in node.inputs.items()}
            name = f"{kind.replace(' ', '_')}_{domain}"
            context = StageContext(
                version=version,
                stage=name,
                config=ProgramView(program, reward_stage.READS),
                options={"domain": domain, **({"guard": True} if kind != "reward" else {})},
                inputs=inputs,
                out=folder / name / "out",
                scratch=folder / name / "scratch",
                seed=derive_seed(seed, name),
                workspace=folder,
            )
            for path in (context.out, context.scratch):
                path.mkdir(parents=True)
            reward_stage.run(context)
            found[kind][domain] = context.out
    return found


class Looks:
    """Judges held-out answers, and notes what is true of them."""

    def __init__(
        self, scene: Scene, prompts: Sequence[Prompt], judges: dict[str, CombinedReward], every: int
    ):
        self._scene, self._judges, self._every = scene, judges, every
        ids = [tuple(scene.renderer.prompt(prompt.messages)) for prompt in prompts]
        self._prompts = dict(zip(ids, prompts, strict=True))
        self.rows: list[dict[str, float]] = []
        self.trainer: PPOTrainer | None = None

    def judge(self, episodes: Sequence[Episode]) -> np.ndarray:
        """The training reward (b,), so that nothing stops by it."""
        assert self.trainer is not None
        roles, tokens = self.trainer.roles, [episode.tokens for episode in episodes]
        width = max(len(one.response) for one in tokens)
        seen = []
        for role in (roles.policy, roles.reference):
            results = passes(role, tokens, temperature=1.0, limit=4096, device=CPU)
            seen.append(table(results, len(tokens), width, CPU))
        kl = max(0.0, float((seen[0] - seen[1]).sum(1).mean()))
        truths = []
        for episode in episodes:
            prompt = self._prompts[episode.prompt.ids]
            truth = gold(prompt.messages, episode.text, episode.finished)
            truths.append(getattr(truth, prompt.domain))
        scores = {name: judge.unwhitened(episodes) for name, judge in self._judges.items()}
        row = {
            "iteration": len(self.rows) * self._every,
            "sqrt_kl": math.sqrt(kl),
            **{name: float(values.mean()) for name, values in scores.items()},
            "text_loss": self.trainer.text_loss(),
            "gold": float(np.mean(truths)),
            "gold_error": float(np.std(truths) / math.sqrt(len(truths))),
        }
        self.rows.append({name: round(value, 4) for name, value in row.items()})
        print(json.dumps(self.rows[-1]), flush=True)
        return scores["reward"]


def climb(scene: Scene, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train judges and policy; the rows of PPO and of best-of-n."""
    stages = train_judges(
        scene, options.version, options.share, options.spoilt, options.seed, folder
    )
    shaping = {**scene.program.ppo.reward.model_dump(), "length_penalty": options.length_penalty}
    config = PPOConfig.model_validate(
        {
            **scene.program.ppo.model_dump(),
            "iterations": options.iterations,
            "learning_rate": options.learning_rate,
            "kl": {"coefficient": options.beta},
            "reward": shaping,
            "ptx": {"coefficient": 0.0},  # it holds the policy back, and this is to let go
            "stop": {
                "look_every": options.every,
                "patience": None,
                "keep": "last",
                "forgetting": None,
            },
        }
    )
    combine = scene.program.combine
    if options.method == "piecewise":
        combine = CombineConfig(method="piecewise")
    start = scene.stage(options.start or options.version, "finetune") / "model"
    build = Builder(start, stages["reward"], config, "float32", CPU, 0, print)
    renderer = scene.renderer
    judges = {"reward": build.reward(combine, renderer)}
    judges |= {kind: build.reward(combine, renderer, stages[kind]) for kind in GUARDS}
    held = draw_prompts(read_prompts(scene.prepare / "eval_prompts.jsonl"), options.heldout, 1)

    def items(prompts: Sequence[Prompt]) -> list[PromptItem]:
        return [
            PromptItem(tuple(renderer.prompt(one.messages)), tuple(one.messages), one.tag_safety)
            for one in prompts
        ]

    roles = build.roles()
    texts = [
        Tokens(ids[:1], ids[1:])
        for row in stop_texts(scene)
        for ids in [renderer.response(row["text"])]
    ]
    beside = []
    if options.best_of > 1:
        beside = best_of_rows(scene, roles.policy.model, held, items(held), judges, options.best_of)
    looks = Looks(scene, held, judges, options.every)
    looks.trainer = PPOTrainer(
        roles,
        renderer,
        items(read_prompts(scene.prepare / "prompts.jsonl")),
        judges["reward"],
        config,
        seed=options.seed,
        stop_set=StopSet(items(held), looks.judge, texts),
    )
    looks.trainer.train()
    return {"rows": looks.rows, "best_of": beside}


def stop_texts(scene: Scene) -> list[dict[str, Any]]:
    """The world's texts for early stopping; made again for workspaces that have none."""
    path = scene.prepare / STOP_TEXTS
    if not path.is_file():
        with tempfile.TemporaryDirectory() as directory:
            program = scene.program
            world = program.world.model_copy(update={"corpus_documents": 1})
            build_world(world, derive_seed(program.seed, "base", "prepare"), Path(directory))
            return read_jsonl(Path(directory) / STOP_TEXTS)
    return read_jsonl(path)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--version", default="rlhf-v5", help="whose reward models")
    parser.add_argument("--start", default="sft", help="version whose policy PPO starts from")
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--heldout", type=int, default=320)
    parser.add_argument("--method", choices=("linear", "piecewise"), default="piecewise")
    parser.add_argument("--beta", type=float, default=0.02)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--length-penalty", type=float, default=0.02)
    parser.add_argument("--share", type=float, default=0.5)
    parser.add_argument("--spoilt", type=float, default=1.0)
    parser.add_argument("--confirm", type=float, default=0.25)
    parser.add_argument("--patience", type=int, default=5)
    parser.add_argument("--forgetting", type=float, default=StopConfig().forgetting)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--best-of", type=int, default=0, help="answers a prompt; 0 leaves it out")
    parser.add_argument("--out", type=Path, help="write everything there as JSON")
    parser.add_argument("--picture", type=Path, help="draw gold, reward and guards there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    scene = Scene(options.workspace.resolve(), options.version, 40)
    with tempfile.TemporaryDirectory() as directory:
        found = climb(scene, options, Path(directory))
    found["stops"] = verdicts(found["rows"], options.patience, options.confirm, options.forgetting)
    for row in found["stops"]:
        print(json.dumps(row))
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=2))
    if options.picture is not None:
        draw(found, options.picture)


if __name__ == "__main__":
    main()
