"""Time of a stage on GPUs, from their data sheets and the shares of them that are reached."""

from __future__ import annotations

from alignment.config.program import ProgramConfig
from alignment.pipeline.hardware import Card
from alignment.pipeline.node import Node
from alignment.pipeline.shared_stages import DRAWING, processes
from alignment.pipeline.stage_memory import server_gpus
from alignment.pipeline.work import READ, TYPICAL_TOKENS, base_size, operations, stage_size

UTILISATION = 0.4
"""Share of a card's operations that training and reading reach (assumed)."""
BANDWIDTH = 0.6
"""Share of a card's memory traffic that decoding reaches (assumed)."""


def gpus_of(node: Node, program: ProgramConfig, there: int) -> int:
    """How many GPUs a stage uses, of `there`."""
    vllm, count = program.inference.vllm, processes(node, program)
    if program.inference.engine != "vllm":
        return count
    if node.module in DRAWING:
        return max(count, vllm.tensor_parallel_size * vllm.data_parallel_size)
    if node.module != "ppo":
        return count
    servers = server_gpus(program)
    return count + servers if count + servers <= there else max(count, servers)


def seconds_on(node: Node, program: ProgramConfig, card: Card, gpus: int) -> float:
    """Seconds of a stage on so many GPUs of a kind."""
    count = operations(node, program) * stage_size(node, program).parameters
    seconds = count / (gpus * card.operations * UTILISATION)
    if node.module in (*DRAWING, "ppo"):
        seconds += _decoding(node, program, card, gpus)
    return seconds


def _decoding(node: Node, program: ProgramConfig, card: Card, gpus: int) -> float:
    """Seconds of drawing: every step of a batch of rows reads all weights once."""
    rows: int = getattr(program, node.module).generation.generation_batch_size
    tokens = operations(node, program) / READ / gpus
    if node.module == "ppo":
        draw = server_gpus(program) if program.inference.engine == "vllm" else gpus
        tokens = program.ppo.iterations * program.ppo.episodes * TYPICAL_TOKENS / draw
    width = 2 if program.compute.dtype == "bfloat16" else 4
    weights = width * base_size(program).parameters
    return tokens / rows * weights / (card.bandwidth * BANDWIDTH)


def assumptions(card: Card) -> str:
    """What the time rests on, in words."""
    return (
        f"{UTILISATION:.0%} of {card.operations / 1e12:,.0f} TFLOP/s, {BANDWIDTH:.0%} of "
        f"{card.bandwidth / 1e12:.2f} TB/s in decoding, answers of {TYPICAL_TOKENS} tokens"
    )
