"""Which stages share their work among `compute.processes`, and which run side by side."""

from __future__ import annotations

from collections.abc import Sequence

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


def groups(nodes: Sequence[Node], program: ProgramConfig) -> list[list[Node]]:
    """Group stages that may run at once and do not need each other: reward models, then guards, and
    collection with evaluation, before the gate.

    Args:
        program: with the version's own settings.
    """
    result: list[list[Node]] = []
    for node in nodes:
        group = _group_of(node, result, program)
        if group is None:
            result.append([node])
        else:
            group.append(node)
    return result


def _group_of(node: Node, made: Sequence[list[Node]], program: ProgramConfig) -> list[Node] | None:
    """The group that it can join: of its kind, and no later one has what it needs."""
    needed, kind = set(node.inputs.values()), side_by_side(node, program)
    for group in reversed(made):
        if any((other.version, other.stage) in needed for other in group):
            return None
        if kind is not None and kind == side_by_side(group[0], program):
            return group
    return None


def beside(node: Node, plan: Sequence[Node], program: ProgramConfig) -> list[Node]:
    """The other stages of a plan that `orchestration.parallel` runs while this one runs.

    Args:
        program: with the version's own settings.
    """
    if not program.orchestration.parallel:
        return []
    of_version = [other for other in plan if other.version == node.version]
    for group in groups(of_version, program):
        if any(other.key == node.key for other in group):
            return [other for other in group if other.key != node.key]
    return []


def processes(node: Node, program: ProgramConfig) -> int:
    """How many processes share a stage.

    A server draws for one process alone, so that its stages have one; but evaluation also compares
    models, which may have to be sharded.
    """
    ours = node.module in DRAWING and program.inference.engine == "transformers"
    ours |= node.module == "evaluate" and program.compute.sharding == "full"
    shared = ours or node.module == "select" or node.module in TRAINING
    return program.compute.processes if shared else 1
