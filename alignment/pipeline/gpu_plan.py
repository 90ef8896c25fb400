"""What a program needs of given GPUs: memory, time, and the smallest change that makes it fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from alignment.config.load import for_version
from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.pipeline.approval import Decisions
from alignment.pipeline.gpu_time import gpus_of, seconds_on
from alignment.pipeline.hardware import Hardware
from alignment.pipeline.node import Node
from alignment.pipeline.plan import build_plan
from alignment.pipeline.sharding_choice import choose, with_sharding
from alignment.pipeline.shared_stages import SPLIT
from alignment.pipeline.stage_memory import Need, need_at_once

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
        memory: of each GPU, by part; with what runs beside it (`orchestration.parallel`).
        fits: whether that is less than a GPU's memory but for `HEADROOM`.
        seconds: with the assumed shares of the card's speed.
        sharding: none or full, as set or as `auto` would choose on this hardware.
        change: the settings that make it fit, if some do; empty if it fits as it is.
        changed: the stage with that change.
    """

    node: Node
    gpus: int
    memory: Need
    fits: bool
    seconds: float
    sharding: str
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
    settings = for_version(program, node.version)
    plan = build_plan(program, Decisions.load(program))
    if settings.compute.sharding == "auto":
        chosen = choose(node, settings, plan, hardware.place)
        settings = with_sharding(settings, chosen.sharding)
    memory = need_at_once(node, settings, plan, hardware.place)
    if memory is None:
        return None
    gpus = gpus_of(node, settings, hardware.count)
    room = hardware.place.room(gpus)
    fits = memory.total <= room and gpus <= hardware.count
    seconds = seconds_on(node, settings, hardware.card, gpus)
    return StagePlan(node, gpus, memory, fits, seconds, settings.compute.sharding)


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
    single: list[tuple[str, ...]] = [("orchestration.parallel=false",)]
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
