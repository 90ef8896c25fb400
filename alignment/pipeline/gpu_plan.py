"""What a program needs of given GPUs: memory, time, and the smallest change that makes it fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from alignment.config.load import for_version
from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.pipeline.approval import Decisions
from alignment.pipeline.estimate import READ, TYPICAL_TOKENS, base_size, work
from alignment.pipeline.gpu_memory import HEADROOM, Need, need, server_gpus
from alignment.pipeline.hardware import Hardware
from alignment.pipeline.node import Node
from alignment.pipeline.plan import build_plan
from alignment.pipeline.shared_stages import DRAWING, SPLIT, processes

UTILISATION = 0.4
"""Share of a card's operations that training and reading reach (assumed)."""
BANDWIDTH = 0.6
"""Share of a card's memory traffic that decoding reaches (assumed)."""
_MOST = 64  # GPUs that are tried
_RLOO = ("ppo.algorithm=rloo", "ppo.samples_per_prompt=4", "ppo.critic_warmup_iterations=0")
_MACHINE = 8  # GPUs of a machine, at most

Load = Callable[[Sequence[str]], ProgramConfig]
"""The program with some more settings, `key=value`."""


@dataclass(frozen=True)
class StagePlan:
    """A stage on given hardware.

    Attributes:
        gpus: how many of them it uses.
        memory: of each GPU, by part.
        fits: whether that is less than a GPU's memory but for `HEADROOM`.
        seconds: with the assumed shares of the card's speed.
        change: the settings that make it fit, if some do; empty if it fits as it is.
        changed: the stage with that change.
    """

    node: Node
    gpus: int
    memory: Need
    fits: bool
    seconds: float
    change: tuple[str, ...] = ()
    changed: StagePlan | None = None

    @property
    def runnable(self) -> StagePlan | None:
        """The stage as it can run on such GPUs; None if no change that was tried makes it fit."""
        return self if self.fits else self.changed


def gpu_plan(load: Load, hardware: Hardware) -> list[StagePlan]:
    """Every stage that runs a model, on these GPUs; of alike stages the first."""
    program = load(())
    plans: dict[tuple[str, str], StagePlan] = {}
    for node in build_plan(program, Decisions.load(program)):
        kind = (node.stage, "sft" if node.version == "sft" else "")
        plan = None if kind in plans else _stage(node, program, hardware)
        if plan is not None:
            plans[kind] = plan
    return [plan if plan.fits else _mended(plan, load, hardware) for plan in plans.values()]


def _stage(node: Node, program: ProgramConfig, hardware: Hardware) -> StagePlan | None:
    size = base_size(program)
    settings = for_version(program, node.version)
    memory = need(node, settings, size, hardware.count)
    if memory is None:
        return None
    gpus = _gpus(node, settings, hardware)
    room = hardware.card.memory * (1 - HEADROOM)
    fits = memory.total <= room and gpus <= hardware.count
    operations = work(node, settings, size)[0] * size.parameters
    seconds = operations / (gpus * hardware.card.operations * UTILISATION)
    if node.module in (*DRAWING, "ppo"):
        seconds += _decoding(node, settings, size.parameters, hardware, gpus)
    return StagePlan(node, gpus, memory, fits, seconds)


def _gpus(node: Node, program: ProgramConfig, hardware: Hardware) -> int:
    vllm, count = program.inference.vllm, processes(node, program)
    if program.inference.engine != "vllm":
        return count
    if node.module in DRAWING:
        return max(count, vllm.tensor_parallel_size * vllm.data_parallel_size)
    if node.module != "ppo":
        return count
    servers = server_gpus(program)
    return count + servers if count + servers <= hardware.count else max(count, servers)


def _decoding(
    node: Node, program: ProgramConfig, parameters: float, hardware: Hardware, gpus: int
) -> float:
    """Seconds of drawing: every step of a batch of rows reads all weights once."""
    rows: int = getattr(program, node.module).generation.generation_batch_size
    tokens = work(node, program, base_size(program))[0] / READ / gpus
    if node.module == "ppo":
        draw = server_gpus(program) if program.inference.engine == "vllm" else gpus
        tokens = program.ppo.iterations * program.ppo.episodes * TYPICAL_TOKENS / draw
    width = 2 if program.compute.dtype == "bfloat16" else 4
    return tokens / rows * width * parameters / (hardware.card.bandwidth * BANDWIDTH)


def _mended(plan: StagePlan, load: Load, hardware: Hardware) -> StagePlan:
    """The plan with the smallest change that makes the stage fit, if there is one."""
    for change in _changes(plan.node, hardware):
        changed = _fitting(plan.node, change, load, hardware)
        if changed is None:
            continue
        needed = list(change)
        for setting in change:  # what the others make superfluous
            rest = [other for other in needed if other != setting]
            if rest and (simpler := _fitting(plan.node, rest, load, hardware)) is not None:
                needed, changed = rest, simpler
        return replace(plan, change=tuple(needed), changed=changed)
    return plan


def _changes(node: Node, hardware: Hardware) -> Iterator[tuple[str, ...]]:
    """Changes to try, the smallest first: each alone, then one after another together, then more
    GPUs."""
    section = {"reward": "rewards", "ppo": "ppo"}.get(node.module)
    recipe = f"finetune.{'sft' if node.version == 'sft' else 'rejection'}"
    split = ("compute.sharding=full", f"compute.processes={hardware.count}")
    single: list[tuple[str, ...]] = []
    if node.module in (*SPLIT, "select") and hardware.count > 1:
        single.append(split)
    match node.module:
        case "finetune":
            single += [
                (f"{recipe}.per_device_train_batch_size=1",),
                (f"{recipe}.gradient_checkpointing=true",),
                (f"{recipe}.lora={{}}",),
            ]
        case "reward":
            single += [
                (f"{section}.gradient_checkpointing=true",),
                (f"{section}.max_tokens_per_micro_batch=2048",),
                (f"{section}.lora={{}}",),
            ]
        case "ppo":
            single += [
                ("ppo.max_tokens_per_micro_batch=2048",),
                ("ppo.generation.generation_batch_size=16",),
                _RLOO,
                ("ppo.lora={}", "ppo.critic_init=policy"),
                ("inference.engine=vllm",),
                (f"inference.vllm.tensor_parallel_size={min(hardware.count, _MACHINE)}",),
            ]
        case "sample" | "collect" | "evaluate":
            single += [
                (f"{node.module}.generation.generation_batch_size=16",),
                ("evaluate.max_tokens_per_micro_batch=1024",),
                ("sample.temperature=1.0",),
                ("inference.engine=vllm",),
                (f"inference.vllm.tensor_parallel_size={hardware.count}",),
            ]
    single.append(("compute.dtype=bfloat16",))
    yield from single
    for length in range(2, len(single) + 1):
        yield tuple(setting for change in single[:length] for setting in change)
    count = hardware.count
    while node.module in SPLIT and (count := count * 2) <= _MOST:
        more = ("compute.sharding=full", f"compute.processes={count}")
        yield (*more, *(s for change in single[1:] for s in change))


def _fitting(node: Node, change: Sequence[str], load: Load, hardware: Hardware) -> StagePlan | None:
    """The stage with these settings, if it then fits."""
    try:
        program = load(change)
    except AlignError:  # the settings exclude one another
        return None
    # More GPUs than there are, if more processes are tried.
    most = max(program.compute.processes, hardware.count)
    plan = _stage(node, program, Hardware(most, hardware.card))
    return plan if plan is not None and plan.fits else None
