"""One of two processes that run PPO's stage with a server: `live_child ROOT INPUTS CASES`.

CASES are name → changes of the settings, in JSON. The server is in the first process; in the case
`machines`, where each has a machine to itself, so to say, in both; in `hanging` it is a process of
its own.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from live_fake import InThisProcess
from test_ppo_stage import context

import alignment.stages.ppo as stage
from alignment.inference.vllm_environment import Installed
from alignment.utils import distributed

# Three batches of nine, of which machines draw four and five, and two looks at two answers each.
DRAWN = (3 * 4 + 2 * 2, 3 * 5 + 2 * 2)


class First(InThisProcess):
    """A server that only the first process may start."""

    def __init__(self, *args: Any):
        assert distributed.is_first()
        super().__init__(*args)


def main(root: Path, inputs: str, cases: str) -> None:
    torch.set_num_threads(1)
    distributed.join("cpu")
    given = {key: Path(path) for key, path in json.loads(inputs).items()}
    rank = distributed.rank()
    for name, changes in json.loads(cases).items():
        ctx = context(root, given, name if rank == 0 else f"{name}-{rank}", **changes)
        ctx.scratch = root / name / "scratch"
        if name == "hanging":
            with patch("alignment.inference.vllm_plan.check_head", lambda _model: None):
                stage.run(ctx)
        elif name == "machines":
            alone = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
            with served(InThisProcess), patch.dict(os.environ, alone):
                stage.run(ctx)
            assert len(InThisProcess.handler.seen) in DRAWN, "half of the answers"
        else:
            with served(First), patch("alignment.training.ppo.collect.whole", refused):
                stage.run(ctx)
    distributed.leave()


def refused(_model: Any) -> None:
    raise AssertionError("no process may hold the whole policy while a server draws")


class served:
    """A context in which servers are of a kind."""

    def __init__(self, kind: type[InThisProcess]):
        found = Installed(Path("python"), "0.32.0+cpu")
        self._patches = [
            patch("alignment.inference.served.ServerProcess", kind),
            patch("alignment.inference.engine_factory.installed", lambda _config: found),
            patch("alignment.inference.vllm_plan.check_head", lambda _model: None),
        ]

    def __enter__(self) -> None:
        for each in self._patches:
            each.start()

    def __exit__(self, *_: object) -> None:
        for each in self._patches:
            each.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
