"""Does the bag of all versions keep a skill that the bag of the previous version loses?

    python tests/benchmarks/forgetting.py --workspace DIR --skip format --seeds 0 1 2

Llama 2 §3.2.3: RLHF-V3, fine-tuned on the samples of the preceding version alone, lost its rhymes;
from then on the best samples of all versions were used. DIR is a workspace of the built-in world
that is done up to V3. From V2 on no prompt of the skipped category is sampled for, and V2 and V3
are made by the stages `sample`, `select` and `finetune` themselves: with `bag: previous`, with
`bag: all`, and, to tell what is lost by skipping from what changes anyhow, with `bag: previous`
and nothing skipped. Everything else is the same in all arms: each version is judged by the reward
models that it has in the workspace.
Measured: the gold helpfulness of answers to evaluation prompts of that category, and of all other
harmless ones. Intervals: bootstrap over prompts (each the mean over the seeds), 95 %.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from alignment.config.load import for_version
from alignment.config.vocabulary import DOMAINS
from alignment.inference.engine import TransformersEngine, sample_seeds
from alignment.inference.types import SamplingSettings
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.load import load_policy, load_tokenizer
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.workspace import kept_program
from alignment.preferences.prompts import Prompt, read_prompts
from alignment.stages import finetune, sample, select
from alignment.stages.context import ProgramView, StageContext
from alignment.utils.files import read_json
from alignment.utils.seeds import derive_seed
from alignment.utils.statistics import bootstrap_mean
from alignment.world.gold import gold

ARMS = {"previous": "previous", "all": "all", "nothing skipped": "previous"}
"""What is printed, and the bag."""
VERSIONS = ("rlhf-v2", "rlhf-v3")


class Scene:
    """A workspace, and where the experiment writes."""

    def __init__(self, workspace: Path, skip: str, folder: Path):
        program = kept_program(workspace)
        seen = for_version(program, "rlhf-v1")
        chosen: dict[str, Any] = {}
        if seen.sample.temperature == "search":
            found = read_json(self._stage(workspace, "rlhf-v1", "sample") / "temperature.json")
            chosen["temperature"] = found["temperature"]
        without = {**chosen, "skip_categories": (skip,)}
        self.program, self.whole = (
            seen.model_copy(update={"sample": seen.sample.model_copy(update=changes)})
            for changes in (without, chosen)
        )
        self.workspace, self.folder = workspace, folder
        self.done = {
            name: self._stage(workspace, version, stage)
            for name, version, stage in (
                ("prepare", "base", "prepare"),
                ("select", "rlhf-v1", "select"),
                ("policy", "rlhf-v1", "finetune"),
            )
        }
        self.rewards = {
            version: {
                f"reward_{domain}": self._stage(workspace, version, f"reward_{domain}")
                for domain in DOMAINS
            }
            for version in VERSIONS
        }

    @staticmethod
    def _stage(workspace: Path, version: str, stage: str) -> Path:
        ledger = Ledger(workspace)
        manifest = ledger.current(version, stage)
        assert manifest is not None, f"{workspace}: {version}/{stage} is not done"
        return ledger.committed_dir(version, stage, manifest.fingerprint)

    def run(
        self,
        module: Any,
        name: str,
        version: str,
        seed: int,
        inputs: dict[str, Path],
        *,
        whole: bool,
        **options: Any,
    ) -> Path:
        """Carry out one stage, skipping nothing if `whole`; its outputs."""
        folder = self.folder / name
        for part in ("out", "scratch"):
            (folder / part).mkdir(parents=True)
        common = {"prepare": self.done["prepare"], **self.rewards[version]}
        ctx = StageContext(
            version=version,
            stage=name,
            config=ProgramView(self.whole if whole else self.program, module.READS),
            options=options,
            inputs={**common, **inputs},
            out=folder / "out",
            scratch=folder / "scratch",
            seed=derive_seed(seed, "forgetting", version),
            workspace=self.folder,
        )
        module.run(ctx)
        shutil.rmtree(folder / "scratch")
        return folder / "out"

    def gold(self, policy: Path, prompts: list[Prompt], draws: int) -> np.ndarray:
        """[prompts] mean gold helpfulness of `draws` answers at temperature 1."""
        model = load_policy(policy / "model")
        renderer = ChatRenderer(load_tokenizer(policy / "model"))
        settings = SamplingSettings(max_new_tokens=self.program.evaluate.generation.max_new_tokens)
        tokens = [renderer.prompt(prompt.messages) for prompt in prompts]
        seeds = sample_seeds(1, [prompt.id for prompt in prompts], draws)
        found = TransformersEngine(model, renderer).sample(tokens, seeds, settings)
        scores = [
            [gold(prompt.messages, one.text, one.finished).helpfulness for one in group]
            for prompt, group in zip(prompts, found, strict=True)
        ]
        return np.array(scores).mean(axis=1)


def versions(scene: Scene, arm: str, seed: int) -> dict[str, Path]:
    """V2 and V3 of one arm: version → directory of its policy."""
    policies = {"rlhf-v1": scene.done["policy"]}
    earlier = {"earlier/rlhf-v1": scene.done["select"]}
    parent, bag, whole = "rlhf-v1", ARMS[arm], arm == "nothing skipped"
    for version in VERSIONS:
        name = f"{seed}/{arm.replace(' ', '-')}/{version}"
        start = policies[parent]
        inputs = {"policy": start}
        drawn = scene.run(sample, f"{name}/sample", version, seed, inputs, whole=whole)
        inputs = {"sample": drawn, **(earlier if bag == "all" else {})}
        chosen = scene.run(select, f"{name}/select", version, seed, inputs, whole=whole, bag=bag)
        inputs = {"start": start, "select": chosen}
        folder = f"{name}/finetune"
        policies[version] = scene.run(finetune, folder, version, seed, inputs, whole=whole)
        earlier[f"earlier/{version}"] = chosen
        parent = version
    return policies


def main() -> None:
    """See the module; prints JSON lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--skip", default="format")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--draws", type=int, default=4, help="answers to each evaluation prompt")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(options.workspace.resolve(), options.skip, Path(folder))
        every = read_prompts(scene.done["prepare"] / "eval_prompts.jsonl")
        asked = {
            options.skip: [one for one in every if one.category == options.skip],
            "others": [
                one for one in every if one.category != options.skip and one.domain == "helpfulness"
            ],
        }
        before = {
            name: scene.gold(scene.done["policy"], prompts, options.draws)
            for name, prompts in asked.items()
        }
        after: dict[tuple[str, str, str], list[np.ndarray]] = {}
        for seed in options.seeds:
            for arm in ARMS:
                for version, policy in versions(scene, arm, seed).items():
                    if version == "rlhf-v1":
                        continue
                    for name, prompts in asked.items():
                        found = scene.gold(policy, prompts, options.draws)
                        after.setdefault((arm, version, name), []).append(found)
                        row = {"seed": seed, "arm": arm, "version": version, "category": name}
                        change = float((found - before[name]).mean())
                        row |= {"gold": round(float(found.mean()), 4), "change": round(change, 4)}
                        print(json.dumps(row), flush=True)
        show(before, after, len(options.seeds))


def show(
    before: dict[str, np.ndarray],
    after: dict[tuple[str, str, str], list[np.ndarray]],
    seeds: int,
) -> None:
    """A line for each arm, version and category, and the difference of the arms."""
    for (arm, version, name), runs in after.items():
        gap = np.mean(runs, axis=0) - before[name]
        by_seed = [round(float((run - before[name]).mean()), 4) for run in runs]
        row: dict[str, Any] = {"bag": arm, "version": version, "category": name, "seeds": seeds}
        row |= {"v1": round(float(before[name].mean()), 4), "prompts": len(gap)}
        print(json.dumps({**row, "change_from_v1": _interval(gap), "by_seed": by_seed}))
    for name in before:
        for one, other in (("all", "previous"), ("all", "nothing skipped")):
            gap = np.mean(after[one, VERSIONS[-1], name], axis=0)
            gap = gap - np.mean(after[other, VERSIONS[-1], name], axis=0)
            row = {"bag": f"{one} minus {other}", "version": VERSIONS[-1], "category": name}
            print(json.dumps({**row, "difference": _interval(gap)}))


def _interval(gaps: np.ndarray) -> dict[str, float]:
    found = bootstrap_mean(gaps, seed=0, samples=2000, level=0.95)
    return {name: round(getattr(found, name), 4) for name in ("mean", "low", "high")}


if __name__ == "__main__":
    main()
