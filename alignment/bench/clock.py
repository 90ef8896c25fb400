"""The stretch of a run that is measured, and who else watches it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

_watch: AbstractContextManager[Any] = nullcontext()


@dataclass
class Clock:
    """Times of the measured stretch: `began` by `time.perf_counter`, then seconds on the wall and
    of this process on the CPU, set when it has ended."""

    began: float
    seconds: float = 0.0
    cpu_seconds: float = 0.0


@contextmanager
def watching(watch: AbstractContextManager[Any]) -> Iterator[None]:
    """Enter `watch` around what `measured` encloses, without the loading before it."""
    global _watch
    before, _watch = _watch, watch
    try:
        yield
    finally:
        _watch = before


@contextmanager
def measured(device: torch.device) -> Iterator[Clock]:
    """Measure the block, with all work that it leaves to a GPU."""
    wait_for(device)
    with _watch:
        clock, cpu = Clock(time.perf_counter()), time.process_time()
        yield clock
        wait_for(device)
        clock.seconds = time.perf_counter() - clock.began
        clock.cpu_seconds = time.process_time() - cpu


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
