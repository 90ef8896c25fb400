"""`compute.sharding: auto`: shards where a stage does not fit without them, decided once.

A stage is judged by the memory that the planner counts (`stage_memory`) on the hardware that is
present. The choice is written into the workspace before the stage's first attempt, and holds for
every later one with the same settings, on whatever day and machine: it decides the last bits. Only
where a whole copy no longer fits is it changed, and that is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import RLock
from typing import Any, Literal

from alignment.config.load import for_version
from alignment.config.program import ProgramConfig
from alignment.errors import ConfigError
from alignment.pipeline.approval import Decisions
from alignment.pipeline.hardware import GIB, Place, present
from alignment.pipeline.node import Node
from alignment.pipeline.plan import build_plan
from alignment.pipeline.shared_stages import SPLIT, beside
from alignment.pipeline.slices import config_slice
from alignment.pipeline.stage_memory import need_at_once
from alignment.pipeline.work import UNKNOWN_PARAMETERS, stage_size
from alignment.utils.files import atomic_write_json, digest_json, read_json

KEPT = "sharding-choice.json"
"""File of the workspace: `version/stage` → its choice."""
SHARDED = (*SPLIT, "select", "sample", "evaluate")
"""Stages in which some model can be split."""
_lock = RLock()


@dataclass(frozen=True)
class Choice:
    """Whether a stage is sharded, and why.

    Attributes:
        whole: bytes of a process, and of what runs beside it, without shards.
        split: with them; as many where the stage has one process.
        room: bytes that a process may take.
        place: the hardware, in words.
        settings: digest of the settings that it holds for.
        at_once: how many other stages run beside it.
    """

    sharding: Literal["none", "full"]
    whole: float
    split: float
    room: float
    place: str
    settings: str
    at_once: int = 0

    @property
    def fits(self) -> bool:
        """Whether the stage fits, so divided."""
        return (self.split if self.sharding == "full" else self.whole) <= self.room

    def __str__(self) -> str:
        shards = f", {self.split / GIB:,.1f} in shards" if self.split < self.whole else ""
        return (
            f"sharding {self.sharding}: a process needs {self.whole / GIB:,.1f} GiB whole{shards}; "
            f"it may take {self.room / GIB:,.1f} on {self.place}"
        )


def with_sharding(program: ProgramConfig, sharding: str) -> ProgramConfig:
    """The program with `compute.sharding` set."""
    compute = program.compute.model_copy(update={"sharding": sharding})
    return program.model_copy(update={"compute": compute})


def choose(node: Node, program: ProgramConfig, plan: Sequence[Node], place: Place) -> Choice:
    """The choice on given hardware.

    Args:
        program: with the version's own settings.
        plan: in which `orchestration.parallel` may run other stages beside this one.
    """
    compute = program.compute
    several = compute.processes > 1
    whole = _bytes(node, with_sharding(program, "none"), plan, place)
    split = _bytes(node, with_sharding(program, "full"), plan, place) if several else whole
    others = len(beside(node, plan, program))
    room = place.room(compute.processes // compute.nodes, 1 + others)
    sharding: Literal["none", "full"] = "full" if split < whole and whole > room else "none"
    return Choice(sharding, whole, split, room, place.name, settings_digest(node, program), others)


def _bytes(node: Node, program: ProgramConfig, plan: Sequence[Node], place: Place) -> float:
    found = need_at_once(node, program, plan, place)
    return 0.0 if found is None else found.total


def settings_digest(node: Node, program: ProgramConfig) -> str:
    """Of the settings for which a choice holds."""
    slice_ = config_slice(program, node.module)
    return digest_json({"stage": slice_, "processes": program.compute.processes})


def settled(
    program: ProgramConfig, node: Node, plan: Sequence[Node], place: Place | None = None
) -> ProgramConfig:
    """The program with `compute.sharding` none or full, where it says auto: as the workspace has it
    for this stage.

    Args:
        place: what would be chosen for if nothing was; None: nothing would, which counts as none.
    """
    if program.compute.sharding != "auto":
        return program
    chosen = chosen_before(node, program)
    if chosen is None and place is not None:
        chosen = choose(node, program, plan, place)
    return with_sharding(program, chosen.sharding if chosen else "none")


def chosen_before(node: Node, program: ProgramConfig) -> Choice | None:
    """The choice that the workspace holds for a stage with these settings, if `auto` made one."""
    if program.compute.sharding != "auto":
        return None
    stored = _stored(program.workspace).get(node.key)
    found = None if stored is None else Choice(**stored)
    return found if found and found.settings == settings_digest(node, program) else None


def _stored(workspace: Path) -> dict[str, Any]:
    path = workspace / KEPT
    return read_json(path) if path.is_file() else {}


def decide(
    node: Node, program: ProgramConfig, plan: Sequence[Node], place: Place | None = None
) -> tuple[Choice, str | None]:
    """The choice that counts for a stage here: that of the workspace while it fits, else a new one.

    Args:
        place: None looks at this machine.

    Returns:
        The choice, and what to tell people of one that is changed or that would be another here.

    Raises:
        ConfigError: the stage does not fit even in shards, or there is nothing to judge by.
    """
    fresh = choose(node, program, plan, place or _here(node, program))
    before = chosen_before(node, program)
    if before is None or (before.sharding, before.place) == (fresh.sharding, fresh.place):
        _refuse_too_large(node, program, fresh)
        return before or fresh, None
    if before.sharding == fresh.sharding:
        _refuse_too_large(node, program, fresh)
        return before, None
    if replace(fresh, sharding=before.sharding).fits:
        return before, (
            f"{node.key}: sharding stays {before.sharding}, as was chosen on {before.place}; "
            f"on {fresh.place} it would be {fresh.sharding}"
        )
    _refuse_too_large(node, program, fresh)
    return fresh, (
        f"{node.key}: sharding was {before.sharding}, chosen on {before.place}, and does not fit "
        f"here: {fresh}. Its results differ from those begun there by rounding"
    )


def keep(
    node: Node, program: ProgramConfig, plan: Sequence[Node], say: Callable[[str], None]
) -> None:
    """Before a stage's attempt: settle its choice in the workspace, which the caller holds. Stages
    in which no model can be split have none and run on any machine.

    Raises:
        ConfigError: as `decide`.
    """
    if program.compute.sharding != "auto" or node.module not in SHARDED:
        return
    with _lock:  # stages that run side by side have a thread each
        choice, note = decide(node, program, plan)
        stored = _stored(program.workspace)
        if stored.get(node.key) != asdict(choice):
            atomic_write_json(program.workspace / KEPT, {**stored, node.key: asdict(choice)})
    if note is not None:
        say(note)


def outlook(program: ProgramConfig, plan: Sequence[Node], place: Place | None) -> dict[str, Choice]:
    """`version/stage` → what `auto` chose, or would choose, for each stage that can be split."""
    found = {}
    for node in plan if program.compute.sharding == "auto" else ():
        settings = for_version(program, node.version)
        choice = chosen_before(node, settings)
        if choice is None and place is not None and node.module in SHARDED:
            choice = choose(node, settings, plan, place)
        if choice is not None and node.module in SHARDED:
            found[node.key] = choice
    return found


def check_sharding(program: ProgramConfig, nodes: Sequence[Node]) -> None:
    """Check before a run that its stages fit in which a model can be split, with shards where
    `auto` would take them.

    Raises:
        ConfigError: as `decide`.
    """
    if program.compute.sharding != "auto":
        return
    plan = build_plan(program, Decisions.load(program))
    for node in nodes:
        if node.module in SHARDED:
            decide(node, for_version(program, node.version), plan)


def _here(node: Node, program: ProgramConfig) -> Place:
    """This machine.

    Raises:
        ConfigError: it does not tell what the stage's processes will have, or how large the model
            is.
    """
    compute = program.compute
    place = present(compute.device)
    elsewhere = compute.launch is not None and compute.device != "cpu"
    if place is None or (elsewhere and not place.count):
        raise ConfigError(
            "auto judges by the GPUs of this machine, and there is none",
            where="compute.sharding",
            remedy="say none or full (align plan CONFIG --hardware 8xH100-80GB tells which), or "
            "start on a machine that has them",
        )
    if stage_size(node, program).parameters == UNKNOWN_PARAMETERS:
        raise ConfigError(
            "auto judges by the size of the model, which is not on this disk",
            where="compute.sharding",
            remedy="give base.path (or finetune.student.path) as a directory, or say none or full",
        )
    return place


_LESS = {
    "finetune": "finetune.*.lora, gradient_checkpointing, a smaller per_device_train_batch_size",
    "student": "a smaller finetune.*.per_device_train_batch_size",
    "reward": "rewards.lora, gradient_checkpointing, a smaller max_tokens_per_micro_batch",
    "ppo": "ppo.lora, a smaller max_tokens_per_micro_batch or generation_batch_size",
}


def _refuse_too_large(node: Node, program: ProgramConfig, choice: Choice) -> None:
    """Raise a ConfigError if a stage does not fit."""
    if choice.fits:
        return
    count = program.compute.processes
    least = choice.split if choice.sharding == "full" else choice.whole
    shards = "even in shards " if choice.sharding == "full" else ""
    less = _LESS.get(node.module)
    raise ConfigError(
        f"{node.key} does not fit: {shards}each of {count} processes needs {least / GIB:,.1f} GiB, "
        f"and may take {choice.room / GIB:,.1f} on {choice.place}",
        where="compute.sharding",
        remedy=("" if count > 1 else "compute.processes splits it over several GPUs or machines; ")
        + (f"{less} take less; " if less else "")
        + ("orchestration.parallel: false runs one stage at a time; " if choice.at_once else "")
        + "align plan CONFIG --hardware finds the smallest change, none takes the risk",
    )
