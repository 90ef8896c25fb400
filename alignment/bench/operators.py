"""Where the time of a measured run goes, by operator of torch."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from alignment.bench.clock import watching
from alignment.bench.phases import replaced
from alignment.inference import engine
from alignment.utils import threads

MOST = 12


class InTurn(Executor):
    """Does each piece of work at once, in the thread that brings it; the profiler sees no other."""

    def __init__(
        self, max_workers: int = 1, *, initializer: Any = None, initargs: tuple[Any, ...] = ()
    ):
        if initializer is not None:
            initializer(*initargs)

    def submit(self, function: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*given, **named))
        except Exception as error:
            future.set_exception(error)
        return future


def operators(run: Callable[[], Any]) -> dict[str, float]:
    """Shares of the time within operators, largest first; those below the first `MOST` as `rest`.

    An operator's time is its own, without those that it calls: on a GPU if there is one, else on
    the CPU. Work that would run side by side, each piece on one thread, runs in turn, still on one
    thread each.
    """
    device = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device else [])]
    profiler = profile(activities=activities, acc_events=True)
    with ExitStack() as stack, watching(profiler):
        for module in (engine, threads):
            stack.enter_context(replaced(module, "ThreadPoolExecutor", InTurn))
        run()
    kind = "self_device_time_total" if device else "self_cpu_time_total"
    times = {
        event.key.removeprefix("aten::"): float(getattr(event, kind))
        for event in profiler.key_averages()
    }
    whole = sum(times.values()) or 1.0
    ordered = sorted(times, key=lambda name: -times[name])
    shares = {name: round(times[name] / whole, 4) for name in ordered[:MOST]}
    if ordered[MOST:]:
        shares["rest"] = round(sum(times[name] for name in ordered[MOST:]) / whole, 4)
    return shares
