"""Which stages share their work among `compute.processes`, and which run side by side."""

from __future__ import annotations

from alignment.config.program import ProgramConfig
from alignment.pipeline.node import Node

TRAINING = ("pretrain", "finetune", "student", "reward", "ppo")
SPLIT = ("finetune", "student", "reward", "ppo")
"""Stages whose models `compute.sharding: full` splits while they learn."""
DRAWING = ("sample", "collect", "evaluate")
"""Stages that draw answers: in our own loop or on a server."""
_SIDE_BY_SIDE = {"reward": "reward", "evaluate": "judging", "collect": "judging"}


def side_by_side(node: Node, program: ProgramConfig) -> str | None:
    """The kind of stages with which a stage may run at once (`orchestration.parallel`), if any.

    Two vLLM servers would each take the same GPUs, or a CPU's memory, for themselves.
    """
    if node.module in DRAWING and program.inference.engine == "vllm":
        return None
    return _SIDE_BY_SIDE.get(node.module)


def processes(node: Node, program: ProgramConfig) -> int:
    """How many processes share a stage.

    A server draws for one process alone, so that its stages have one; but evaluation also compares
    models, which may have to be sharded.
    """
    ours = node.module in DRAWING and program.inference.engine == "transformers"
    ours |= node.module == "evaluate" and program.compute.sharding == "full"
    shared = ours or node.module == "select" or node.module in TRAINING
    return program.compute.processes if shared else 1
