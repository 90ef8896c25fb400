"""Estimates time and memory of each stage before anything starts.

If this workspace has already run the stage, its measured time and peak memory are the estimate.
Otherwise the memory is counted (`stage_memory`), and so are the operations (`work`), which are
divided by this machine's speed on a small matrix product or, on GPUs, by what their data sheets
promise (`gpu_time`). A GPU that is not in the table has no time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

from alignment.config.load import for_version
from alignment.config.program import ProgramConfig
from alignment.pipeline.approval import Decisions
from alignment.pipeline.gpu_time import assumptions, gpus_of, seconds_on
from alignment.pipeline.hardware import LIBRARIES, Place
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.node import Node
from alignment.pipeline.plan import build_plan
from alignment.pipeline.records import Manifest
from alignment.pipeline.sharding_choice import settled
from alignment.pipeline.shared_stages import processes
from alignment.pipeline.stage_memory import need
from alignment.pipeline.work import operations, stage_size

START_SECONDS = 1.0  # loading a model, writing outputs
BURSTS = 8
BURST_SECONDS = 0.02


@dataclass(frozen=True)
class Estimate:
    """Seconds (None: nobody knows) and megabytes of one stage, all processes together; `basis` says
    where the figures come from."""

    seconds: float | None
    memory_mb: float
    basis: str


def estimate(program: ProgramConfig, place: Place | None) -> dict[str, Estimate]:
    """`version/stage` → estimate, for every stage of the program.

    Args:
        place: what it would run on; None: a GPU that is not here.
    """
    ledger = Ledger(program.workspace)
    plan = build_plan(program, Decisions.load(program))
    seen_before: dict[tuple[str, str], Manifest] = {}
    estimates = {}
    for node in plan:
        exact = ledger.current(node.version, node.stage)
        if exact is not None:
            seen_before[(node.module, node.stage)] = exact
        guide = exact or seen_before.get((node.module, node.stage))
        if guide is not None:
            basis = f"{guide.version}, measured"
            estimates[node.key] = Estimate(guide.seconds, guide.peak_memory_mb, basis)
        else:
            settings = settled(for_version(program, node.version), node, plan, place)
            estimates[node.key] = _from_sizes(node, settings, place)
    return estimates


def basis_of_time(place: Place | None) -> str:
    """The figure behind the times of stages that were never measured, or why there is none."""
    named = "name the cards: align plan CONFIG --hardware 8xH100-80GB"
    if place is None:
        return f"no times: compute.device names a GPU, and there is none here; {named}"
    if not place.count:
        speed = machine_speed() / 1e9
        return f"times: {speed:,.0f} GFLOP/s, a fifth of a measured matrix product on {place.name}"
    if place.card is None:
        return f"no times: nothing is known of the speed of {place.name}; {named}"
    return f"times: assumed of {place.name}: {assumptions(place.card)}"


def _from_sizes(node: Node, program: ProgramConfig, place: Place | None) -> Estimate:
    copies = processes(node, program)
    held = need(node, program, place or Place("a GPU", 0.0, copies))
    memory = copies * (LIBRARIES + (held.total if held else 0.0)) / 2**20
    return Estimate(_seconds(node, program, place), memory, "sizes")


def _seconds(node: Node, program: ProgramConfig, place: Place | None) -> float | None:
    count = operations(node, program) * stage_size(node, program).parameters
    if not count:
        return START_SECONDS
    if place is None or (place.count and place.card is None):
        return None
    if place.card is None:
        return START_SECONDS + count / machine_speed()
    gpus = gpus_of(node, program, place.count)
    return START_SECONDS + seconds_on(node, program, place.card, gpus)


@cache
def machine_speed() -> float:
    """Operations per second that training reaches on this machine, from a short measurement.

    Small models reach about a fifth of the speed of a plain matrix product.
    """
    import numpy as np

    square = np.ones((384, 384), dtype=np.float32)
    best = 0.0
    # The best of several bursts in the thread's own time: other load must not count.
    for _ in range(BURSTS):
        began, done = time.thread_time(), 0
        while time.thread_time() - began < BURST_SECONDS:
            square @ square
            done += 1
        best = max(best, done * 2 * 384**3 / (time.thread_time() - began))
    return 0.2 * best
