"""Checks that the disk has room for a stage's outputs before the stage writes anything."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from alignment.config.load import for_version
from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.pipeline.node import Node
from alignment.pipeline.work import UNKNOWN_PARAMETERS, base_size

RESERVE = 50 * 2**20
"""Bytes that every stage may write besides models: samples, tables, pictures, logs."""
WEIGHTS = 4  # bytes a parameter
CHECKPOINT = 12  # weights and the optimiser's two moments in float32
ADAPTER_SHARE = 0.05  # parameters of a low-rank adapter per parameter of the model, at most
TRAINED = {"pretrain": 1, "finetune": 1, "student": 1, "reward": 1, "ppo": 2}
"""Stage module → models it trains (PPO: policy and critic)."""

DRAWN = {"sample": 1, "collect": 2, "evaluate": 2}
"""Stage module → policies that answer in it, full or merged for a server."""


class DiskFullError(AlignError):
    """The disk has not enough room."""

    exit_code = 8


def needed_bytes(program: ProgramConfig, node: Node) -> int:
    """Upper estimate of the bytes that a stage has on disk at once.

    They are its outputs and, while it trains, two checkpoints: one whole, one being written; and
    weights on their way to a server.
    """
    config = for_version(program, node.version)
    parameters = base_size(program).parameters
    return int(_handed_over(config, node) * WEIGHTS * parameters) + _written(
        config, node, parameters
    )


def _handed_over(config: ProgramConfig, node: Node) -> int:
    """Models that a stage writes for a server to load."""
    engine = config.inference.engine
    if node.module == "ppo":
        return 2 if engine == "vllm" and config.ppo.lora is None else 0  # the old and the new
    tuning = config.finetune
    adapters = tuning.sft.lora is not None or tuning.rejection.lora is not None
    return DRAWN.get(node.module, 0) if engine != "transformers" and adapters else 0


def _written(config: ProgramConfig, node: Node, parameters: float) -> int:
    if node.module == "import_base":
        return RESERVE + int(WEIGHTS * parameters)
    if node.module not in TRAINED:
        return RESERVE
    trained = parameters * TRAINED[node.module]
    if _adapter(config, node):
        folded = WEIGHTS * parameters if node.module == "reward" else 0.0  # folded when done
        return RESERVE + int(folded + ADAPTER_SHARE * trained * (WEIGHTS + 2 * CHECKPOINT))
    return RESERVE + int(trained * (WEIGHTS + 2 * CHECKPOINT))


def check_space(program: ProgramConfig, node: Node) -> None:
    """Check that the outputs of a stage fit on the disk.

    Raises:
        DiskFullError: they do not fit; it says how much is needed and how much is free.
    """
    if shutil.disk_usage(program.workspace).free < needed_bytes(program, node):
        raise disk_full(program, node)


def check_program_space(program: ProgramConfig, nodes: Sequence[Node]) -> None:
    """Check that the models of all stages still to do fit on the disk together.

    Raises:
        DiskFullError: they do not fit.
    """
    if not nodes or base_size(program).parameters == UNKNOWN_PARAMETERS:
        return
    kept = sum(_kept_bytes(program, node) for node in nodes)
    free = shutil.disk_usage(program.workspace).free
    if free < kept:
        raise DiskFullError(
            f"the disk is too full for the {len(nodes)} stages to do: their models take about "
            f"{_amount(kept)}, {_amount(free)} are free",
            where=str(program.workspace),
            remedy=f"free {_amount(kept - free)}, set another workspace, train adapters (lora), "
            "or do some versions first (--until)",
        )


def _kept_bytes(program: ProgramConfig, node: Node) -> int:
    """Bytes of the models that a stage leaves behind."""
    parameters = base_size(program).parameters
    if node.module == "import_base":
        return 0  # linked where possible
    count = TRAINED.get(node.module, 0)
    share = ADAPTER_SHARE if _adapter(for_version(program, node.version), node) else 1.0
    return int(count * share * WEIGHTS * parameters)


def disk_full(program: ProgramConfig, node: Node) -> DiskFullError:
    """The error for a stage for which the disk has not enough room."""
    need, free = needed_bytes(program, node), shutil.disk_usage(program.workspace).free
    return DiskFullError(
        f"the disk is too full for {node.key}: it needs about {_amount(need)}, "
        f"{_amount(free)} are free",
        where=str(program.workspace),
        remedy=f"free {_amount(max(need - free, 0))} (superseded attempts: `align doctor`), "
        "then `align resume`",
    )


def _adapter(program: ProgramConfig, node: Node) -> bool:
    if node.module == "ppo":
        return program.ppo.lora is not None
    if node.module == "reward":
        return program.rewards.lora is not None
    if node.module in ("finetune", "student"):
        recipe = program.finetune.sft if node.version == "sft" else program.finetune.rejection
        return recipe.lora is not None
    return False


def _amount(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
