"""`align bench ppo` beside TRL 1.12.0's PPOTrainer: the same model, prompts and work, in turns.

TRL needs an environment of its own, for it has shipped no PPO since 1.13:

    python -m venv trl112 && trl112/bin/pip install trl==1.12.0 transformers torch
    python tests/benchmarks/ppo_vs_trl.py --model DIR --trl-python trl112/bin/python

Prints one JSON line for each run and one with the medians and their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from last_json import last_json

HERE = Path(__file__).resolve().parent
OURS = """
import json, sys
from pathlib import Path
from alignment.bench.ppo import run
given = json.loads(sys.argv[1])
given["prompts"] = json.loads(Path(given["prompts"]).read_text())
print(json.dumps(run(**{**given, "model": Path(given["model"])})))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--trl-python", required=True)
    parser.add_argument("--trl-path", default=None, help="PYTHONPATH of the TRL side")
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    sys.path.insert(0, str(HERE.parents[1]))
    from alignment.bench.ppo import openings
    from alignment.models.load import load_tokenizer

    rates: dict[str, list[dict[str, float]]] = {"ours": [], "trl": []}
    with tempfile.TemporaryDirectory() as directory:
        prompts = Path(directory) / "prompts.json"
        prompts.write_text(json.dumps(openings(load_tokenizer(given.model), given.episodes)))
        ours = {
            "model": given.model,
            "episodes": given.episodes,
            "batch": given.batch,
            "new_tokens": given.new_tokens,
            "epochs": given.epochs,
            "prompts": str(prompts),
        }
        theirs = ["--model", given.model, "--prompts", str(prompts)]
        for name in ("batch", "new-tokens", "epochs", "threads"):
            theirs += [f"--{name}", str(getattr(given, name.replace("-", "_")))]
        path = {"PYTHONPATH": given.trl_path} if given.trl_path else {}
        commands = {
            "ours": (
                [sys.executable, "-c", OURS, json.dumps(ours)],
                {"PYTHONPATH": str(HERE.parents[1])},
            ),
            "trl": ([given.trl_python, str(HERE / "trl_ppo.py"), *theirs], path),
        }
        # In turns: whatever else the machine does falls on both alike.
        for _ in range(given.repeat):
            for name, (command, more) in commands.items():
                rates[name].append(
                    last_json(command, {"OMP_NUM_THREADS": str(given.threads), **more})
                )
                print(json.dumps(rates[name][-1]), flush=True)
    medians = {
        name: statistics.median(row["episodes_per_s"] for row in rows)
        for name, rows in rates.items()
    }
    memory = {name: max(row["peak_rss_mb"] for row in rows) for name, rows in rates.items()}
    ratio = medians["ours"] / medians["trl"]
    print(json.dumps({"episodes_per_s": medians, "ratio": round(ratio, 2), "peak_rss_mb": memory}))


if __name__ == "__main__":
    main()
