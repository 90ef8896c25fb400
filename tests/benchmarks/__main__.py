"""`make bench`: speed by size of model, beside the usual ways, as one table.

    python -m tests.benchmarks [260k 25m 135m] [--rounds 5] [--kinds reward] [--trl-python PYTHON]

For each size: reward training beside TRL's RewardTrainer, best-of-16 with two reward models beside
`generate` and two classifiers, and PPO beside TRL 1.12's, the last one, if `--trl-python` names an
interpreter that has it (see ppo_vs_trl.py); ours with the hand-written CPU passes and without.
Every run has a process of its own. All sides take turns, in each round from another one on, so that
what else the machine does falls on all alike. Which passes pay is tried before the first round: a
machine does so once. The work is in proportion to the model: a round of all three sizes takes about
ten minutes on two idle cores.

Prints each JSON line as it comes, then the table in Markdown: medians over the rounds, in brackets
the least and the most. A ratio is to the usual way of the same round, for PPO without TRL 1.12 to
ours without the passes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.last_json import last_json

HERE = Path(__file__).resolve().parent
WORK: dict[str, dict[str, dict[str, int]]] = {
    "260k": {
        "reward": {"pairs": 256, "batch": 32, "max-length": 512},
        "sample": {"prompts": 32, "k": 16, "max-new-tokens": 96},
        "ppo": {"episodes": 128, "batch": 64, "new-tokens": 48, "epochs": 4},
    },
    "25m": {
        "reward": {"pairs": 16, "batch": 8, "max-length": 256},
        "sample": {"prompts": 4, "k": 16, "max-new-tokens": 48},
        "ppo": {"episodes": 16, "batch": 16, "new-tokens": 24, "epochs": 2},
    },
    "135m": {
        "reward": {"pairs": 4, "batch": 2, "max-length": 256},
        "sample": {"prompts": 2, "k": 16, "max-new-tokens": 24},
        "ppo": {"episodes": 8, "batch": 8, "new-tokens": 16, "epochs": 1},
    },
}
RATES = {"reward": "pairs_per_s", "sample": "tokens_per_s", "ppo": "episodes_per_s"}
Lines = Mapping[str, Sequence[Mapping[str, Any]]]
"""Side → its line of each round."""


def write_prompts(model: Path, episodes: int, directory: Path) -> Path:
    """The prompts of `align bench ppo`, for TRL."""
    from alignment.bench.ppo import openings
    from alignment.models.load import load_tokenizer

    path = directory / f"{model.name}.json"
    path.write_text(json.dumps(openings(load_tokenizer(model), episodes)))
    return path


def commands(
    size: str, kind: str, data: Path, trl_python: str | None, directory: Path
) -> dict[str, list[str]]:
    """The commands of one kind of work: ours both ways and, where there is one, the usual way."""
    from alignment.bench.sizes import find

    model = find(size)
    options = [word for name, value in WORK[size][kind].items() for word in (f"--{name}", value)]
    words = ["--model", str(model), *map(str, options)]
    words += ["--data", str(data)] if kind == "reward" else []
    ours = ["-m", "alignment.cli.main", "bench", kind, *words, "--fast-cpu"]
    sides = {way: [sys.executable, *ours, way] for way in ("auto", "off")}
    if kind == "reward":
        peer = [sys.executable, str(HERE / "reward_vs_trl.py"), *words, "--only", "trl"]
    elif kind == "sample":
        script = str(HERE / "sample_vs_generate.py")
        peer = [sys.executable, script, *words, "--side", "transformers"]
    elif trl_python is None:
        return sides
    else:
        work = WORK[size]["ppo"]
        prompts = write_prompts(model, work["episodes"], directory)
        peer = [trl_python, str(HERE / "trl_ppo.py"), "--model", str(model)]
        peer += ["--prompts", str(prompts), "--batch", str(work["batch"])]
        peer += ["--new-tokens", str(work["new-tokens"]), "--epochs", str(work["epochs"])]
    return sides | {"usual": peer}


def in_turns(sides: Sequence[str], rounds: int) -> list[str]:
    """The sides in the order in which they run, each once a round."""
    places = range(len(sides))
    return [sides[(start + place) % len(sides)] for start in range(rounds) for place in places]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, least and most."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def row(size: str, kind: str, lines: Lines) -> str:
    """A line of the table."""
    rates = {side: [float(line[RATES[kind]]) for line in own] for side, own in lines.items()}
    base = rates.get("usual", rates["off"])
    cells = [size, f"{kind}, {RATES[kind].removesuffix('_per_s')}/s"]
    cells.append(spread(rates["usual"]) if "usual" in rates else "")
    for side in ("off", "auto"):
        ratios = [own / other for own, other in zip(rates[side], base, strict=True)]
        cells.append(spread(rates[side]) + ("" if rates[side] is base else f", {spread(ratios)}×"))
    cells.append(spread([100 * float(line["of_limit"]) for line in lines["auto"]], 0) + " %")
    said = lines["auto"][-1]["passes"].items()
    return "| " + " | ".join([*cells, "; ".join(f"{name}: {how}" for name, how in said)]) + " |"


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 2 if there are no pairs to train on."""
    root = HERE.parents[1]
    shared = Path(os.environ.get("ALIGN_SHARED", root.parent / "shared"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sizes", nargs="*", default=["260k", "25m"])
    parser.add_argument("--kinds", nargs="+", choices=sorted(RATES), default=list(RATES))
    parser.add_argument(
        "--data", type=Path, default=shared / "data" / "hh-rlhf" / "harmless.jsonl.gz"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--trl-python", default=None)
    given = parser.parse_args(arguments)
    if strange := set(given.sizes) - set(WORK):
        parser.error(f"no work for {', '.join(sorted(strange))}; there is for {', '.join(WORK)}")
    if "reward" in given.kinds and not given.data.is_file():
        print(f"no pairs at {given.data}: give --data, or set ALIGN_SHARED", file=sys.stderr)
        return 2
    began = time.monotonic()
    rows = []
    line: Mapping[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="align-bench-") as place:
        # What pays is measured anew, not taken from an earlier day's cache.
        environment = {"ALIGN_CACHE_DIR": place, "PYTHONPATH": str(root)}
        for size in given.sizes:
            for kind in given.kinds:
                sides = commands(size, kind, given.data, given.trl_python, Path(place))
                lines: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
                last_json(sides["auto"], environment)
                for side in in_turns(list(sides), given.rounds):
                    lines[side].append(last_json(sides[side], environment))
                    print(json.dumps({"size": size, "side": side, **lines[side][-1]}), flush=True)
                rows.append(row(size, kind, lines))
                line = lines["auto"][-1]
    seconds = time.monotonic() - began
    conditions = f"{line['processor']}, {line['threads']} threads, {line['dtype']}"
    print(f"\n{conditions}, {given.rounds} rounds, {seconds:.0f} s\n")
    print("| model | work | usual way | `fast_cpu: off` | `fast_cpu: auto` | of limit | passes |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
