"""Which stages share their work among `compute.processes`, and which run side by side."""

from __future__ import annotations

from alignment.config.program import ProgramConfig
from alignment.pipeline.node import Node

TRAINING = ("pretrain", "finetune", "student", "reward", "ppo")
SPLIT = ("finetune", "student", "reward", "ppo")
"""Stages whose models `compute.sharding: full` splits while they learn."""
DRAWING = ("sample", "collect", "evaluate")
"""Stages that draw answers: in our own loop or on a server."""
SIDE_BY_SIDE = {"reward": "reward", "evaluate": "judging", "collect": "judging"}
"""Modules whose stages may run at once (`orchestration.parallel`), and with which kind."""


def processes(node: Node, program: ProgramConfig) -> int:
    """How many processes share a stage.

    A server draws for one process alone, so that its stages have one; but evaluation also compares
    models, which may have to be sharded.
    """
    ours = node.module in DRAWING and program.inference.engine == "transformers"
    ours |= node.module == "evaluate" and program.compute.sharding == "full"
    shared = ours or node.module == "select" or node.module in TRAINING
    return program.compute.processes if shared else 1
