"""Reward models on the built-in world: Table 8's shape, both domains, margins, auxiliary loss.

    python tests/benchmarks/reward_ablations.py --workspace DIR

Pretrains and fine-tunes the demo's small model, has the world's annotators judge `--pairs` pairs,
and trains the reward stage's models on them under each setting, with several seeds. About
fifteen minutes on one core; everything is kept in the workspace, and a second call goes on there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import alignment.stages.reward as stage
from alignment.config.load import for_version, load_program
from alignment.config.vocabulary import STRENGTHS
from alignment.execution.runner import Runner
from alignment.stages.context import ProgramView, StageContext
from alignment.utils.files import read_json

ROOT = Path(__file__).resolve().parents[2]
DOMAINS = ("helpfulness", "safety")
# Name → domain and what is set beside the demo's own settings.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"helpfulness, {m} margins": ("helpfulness", {"margin": m}) for m in ("none", "small")},
    "helpfulness, large margins": ("helpfulness", {"margin": "large"}),
    **{f"safety, {m} margins": ("safety", {"margin": m}) for m in ("none", "small", "large")},
    "safety, no auxiliary loss": ("safety", {"auxiliary_weight": 0.0}),
}


def prepared(workspace: Path, pairs: int) -> Runner:
    """A workspace of the demo with one big batch of judged pairs."""
    heldout = max(100, min(4000, pairs // 5))
    settings = [
        f"workspace={workspace}",
        f"collect.pairs={pairs}",
        "collect.safety_share=0.35",
        "rewards.mixture.safety_share=0.9",  # the paper's; the demo's serves so little data
        f"world.prompts={max(2400, pairs)}",
        f"intake.heldout_rows={heldout}",
        "intake.heldout_share=0.2",
    ]
    runner = Runner(load_program(ROOT / "configs" / "demo.yaml", settings))
    with runner:
        for node in runner.plan:
            print(f"# {node.key}", flush=True)
            runner.run_node(node)
            if node.key == "rlhf-v1/intake":
                return runner
    raise SystemExit("the demo has no rlhf-v1/intake")


def trained(runner: Runner, name: str, seed: int, workspace: Path) -> dict[str, Any]:
    """`evaluation.json` of the reward stage under one setting."""
    domain, changed = VARIANTS[name]
    out = workspace / "ablations" / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    if not (out / "evaluation.json").is_file():
        program = for_version(runner.program, "rlhf-v1")
        rewards = program.rewards.model_copy(update=changed)
        program = program.model_copy(update={"rewards": rewards})
        node = next(n for n in runner.plan if n.key == f"rlhf-v1/reward_{domain}")
        scratch = out / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        stage.run(
            StageContext(
                version="rlhf-v1",
                stage=f"reward_{domain}",
                config=ProgramView(program, stage.READS),
                options={"domain": domain},
                inputs=runner.fingerprints.directories(node),
                out=out,
                scratch=scratch,
                seed=seed,
                workspace=workspace,
            )
        )
    found: dict[str, Any] = read_json(out / "evaluation.json")
    return found


def mean(values: list[Any]) -> float:
    """Mean over seeds; NaN where a figure is undefined."""
    return float(np.mean([float("nan") if value is None else value for value in values]))


def row(found: list[dict[str, Any]], test: str) -> dict[str, float]:
    """Accuracy by strength on one test set, mean over seeds, with the last seed's half interval."""
    names = [*STRENGTHS, "all"]
    cells = {n: mean([f["by_strength"][test][n]["accuracy"] for f in found]) for n in names}
    whole = found[-1]["by_strength"][test]["all"]
    return {**cells, "half_interval": (whole["high"] - whole["low"]) / 2, "count": whole["count"]}


def main() -> None:
    """Train what is not there yet, print the tables and one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=24_000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", help="variants whose name has this in it")
    options = parser.parse_args()
    runner = prepared(options.workspace, options.pairs)
    results: dict[str, Any] = {}
    for name in VARIANTS:
        if options.only and options.only not in name:
            continue
        found = [trained(runner, name, seed, options.workspace) for seed in range(options.seeds)]
        domain = VARIANTS[name][0]
        results[name] = {
            "pairs": found[-1]["training"]["pairs"],
            **{test: row(found, test) for test in DOMAINS},
            "ece": mean([f["ece"] for f in found]),
            "longer_wins": mean([f["length"]["longer_wins"]["accuracy"] for f in found]),
            "length_correlation": mean([f["length"]["correlation"] for f in found]),
        }
        if domain == "safety":
            results[name] |= {
                "bins": {
                    b: mean([f["by_bin"][b]["accuracy"] for f in found]) for b in found[0]["by_bin"]
                },
                "unsafe_recall": mean([f["unsafe"]["recall"] for f in found]),
                "unsafe_precision": mean([f["unsafe"]["precision"] for f in found]),
            }
        print(f"{name} ({results[name]['pairs']} pairs)", flush=True)
        for test in DOMAINS:
            cells = results[name][test]
            shown = "  ".join(f"{100 * cells[n]:5.1f}" for n in (*STRENGTHS, "all"))
            print(f"  on {test:11}  {shown} ± {100 * cells['half_interval']:.1f}")
        if domain == "safety":
            recall, precision = results[name]["unsafe_recall"], results[name]["unsafe_precision"]
            print(f"  unsafe: recall {100 * recall:.1f} %, precision {100 * precision:.1f} %")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
