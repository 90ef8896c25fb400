"""`make bench`: reward training and best-of-K beside the usual ways, then PPO alone.

With sizes (`make bench SIZES="260k 25m 135m"`) models are made on the spot and all is measured with
the hand-written CPU passes and without: see fast_cpu.py.

Takes the small real model and data of the folder beside the checkout, or those of $ALIGN_SHARED.
PPO beside TRL needs an environment with TRL 1.12: see ppo_vs_trl.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run the three one after the other; 1 if a benchmark failed, 2 if there is nothing to run."""
    root = HERE.parents[1]
    if len(sys.argv) > 1:
        words = [sys.executable, str(HERE / "fast_cpu.py"), "--sizes", *sys.argv[1:]]
        return subprocess.run(words, cwd=root, check=False).returncode
    shared = Path(os.environ.get("ALIGN_SHARED", root.parent / "shared"))
    model = shared / "models" / "stories260k"
    pairs = shared / "data" / "hh-rlhf" / "harmless.jsonl.gz"
    if not model.is_dir() or not pairs.is_file():
        print(f"no model at {model} or no pairs at {pairs}: set ALIGN_SHARED", file=sys.stderr)
        return 2
    runs = [
        [HERE / "reward_vs_trl.py", "--model", model, "--data", pairs],
        [HERE / "sample_vs_generate.py", "--model", model],
        ["-m", "alignment.cli.main", "bench", "ppo", "--model", model],
    ]
    codes = []
    for words in runs:
        print("$ python " + " ".join(str(word) for word in words), flush=True)
        codes.append(subprocess.run([sys.executable, *map(str, words)], check=False).returncode)
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
