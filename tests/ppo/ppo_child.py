"""One of several processes that run PPO's stage: `python -m ppo_child ROOT INPUTS NAME CHANGES`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from test_ppo_stage import context

import alignment.stages.ppo as stage
from alignment.utils import distributed


def main(root: Path, inputs: str, name: str, changes: str) -> None:
    torch.set_num_threads(1)
    distributed.join("cpu")
    given = {key: Path(path) for key, path in json.loads(inputs).items()}
    rank = distributed.rank()
    ctx = context(root, given, name if rank == 0 else f"{name}-{rank}", **json.loads(changes))
    ctx.scratch = root / name / "scratch"
    stage.run(ctx)
    distributed.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
