"""One of several processes that run PPO's stage: `python -m ppo_child ROOT INPUTS NAMES CHANGES`.

With two names, joined by a comma, the stage runs twice: most of the time goes into imports.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from test_ppo_stage import context

import alignment.stages.ppo as stage
from alignment.utils import distributed


def main(root: Path, inputs: str, names: str, changes: str) -> None:
    torch.set_num_threads(1)
    distributed.join("cpu")
    given = {key: Path(path) for key, path in json.loads(inputs).items()}
    rank = distributed.rank()
    for name in names.split(","):
        ctx = context(root, given, name if rank == 0 else f"{name}-{rank}", **json.loads(changes))
        ctx.scratch = root / name / "scratch"
        stage.run(ctx)
    distributed.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
