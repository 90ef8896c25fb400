"""What is computed at the same time on a CPU: policy and critic, and their micro-batches.

Policy and critic learn from the same advantages but never from each other, so their updates may
run at once. Many small operations on one thread each beat the same operations split over two, and
a queue for the micro-batches of all roles keeps every thread busy to the end. Results do not
depend on which finishes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Together:
    """Runs tasks side by side where that is possible and pays.

    Args:
        apart: the tasks share neither modules nor messages.
        small: their operations are too short to be split between threads; then what the tasks
            give to `each` goes through one queue, each on one thread.
    """

    def __init__(self, *, apart: bool = False, small: bool = False):
        self.apart = apart
        self.small = apart and small
        self._queue: Executor | None = None

    def run(self, tasks: list[Callable[[], Any]]) -> list[Any]:
        """Results of the tasks, in their order; the first error is raised when all have ended."""
        threads = torch.get_num_threads()
        if not self.apart or threads < 2 or not tasks:
            return [task() for task in tasks]
        share = 1 if self.small else max(1, threads // len(tasks))
        at_once = len(tasks) if self.small else min(threads, len(tasks))
        try:
            with _threads(threads, 1) as self._queue, _threads(at_once, share) as pool:
                futures = [pool.submit(task) for task in tasks]
            return [future.result() for future in futures]
        finally:
            self._queue = None
            torch.set_num_threads(threads)

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """`function` of every item, in their order; to be called from a task."""
        if self._queue is None or not self.small:
            return map(function, items)
        return self._queue.map(function, items)


def _threads(count: int, share: int) -> ThreadPoolExecutor:
    """Torch counts threads for each Python thread on its own."""
    return ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(share,))
