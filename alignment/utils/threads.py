"""Runs pieces of work in parallel on a CPU, each on one thread of torch.

Operations of a small model are too short to split between threads; running many at once, each on
one thread, is faster. `alignment.fastpath` decides whether that pays for a model. Results do not
depend on which piece finishes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


_whole: int | None = None


def threads() -> int:
    """Torch's threads in this process, even while workers use one each."""
    return torch.get_num_threads() if _whole is None else _whole


@contextmanager
def _parted() -> Iterator[None]:
    """Remember the number of threads, and restore it."""
    global _whole
    before, here = _whole, torch.get_num_threads()
    _whole = threads()
    try:
        yield
    finally:
        _whole = before
        torch.set_num_threads(here)


@contextmanager
def crew(workers: int) -> Iterator[None]:
    """Have torch use one thread in each of several workers, and restore the number afterwards."""
    if workers == 1:
        yield
        return
    with _parted():
        torch.set_num_threads(1)
        yield


def side_by_side(calls: Sequence[Callable[[], Result]], workers: int) -> list[Result]:
    """Results of independent calls, in the order of the calls."""
    if workers == 1:
        return [call() for call in calls]
    with crew(workers), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda call: call(), calls))


class Together:
    """Runs tasks, and the work that they pass to `each`, in sequence or in parallel.

    Policy and critic learn from the same advantages but not from each other, so their updates may
    run at once. One queue for the micro-batches of all tasks keeps every thread busy to the end.

    Args:
        apart: run in parallel; the tasks must share neither modules nor messages.
    """

    def __init__(self, *, apart: bool = False):
        self.apart = apart
        self._queue: Executor | None = None

    def run(self, tasks: list[Callable[[], Any]]) -> list[Any]:
        """Results of the tasks, in order; the first error is raised when all have ended."""
        count = torch.get_num_threads()
        if not self.apart or count < 2 or not tasks:
            return [task() for task in tasks]
        try:
            with _parted(), _workers(count) as self._queue, _workers(len(tasks)) as pool:
                futures = [pool.submit(task) for task in tasks]
            return [future.result() for future in futures]
        finally:
            self._queue = None

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """`function` of every item, in order; call it from a task."""
        return map(function, items) if self._queue is None else self._queue.map(function, items)


def _workers(count: int) -> ThreadPoolExecutor:
    """A pool whose workers use one torch thread each; torch counts per Python thread."""
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
