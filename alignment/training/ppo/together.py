"""Two independent computations side by side, each on its share of the CPU's threads.

Policy and critic learn from the same advantages but never from each other, so their updates may
run at once. Many small operations on one thread each beat the same operations split over two.
Results do not depend on which finishes first.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


def together(tasks: list[Callable[[], Any]], *, parallel: bool) -> list[Any]:
    """Results of the tasks, in their order; the first error is raised when all have ended.

    Args:
        parallel: only for tasks that share no module; on one thread they run one after the other.
    """
    threads = torch.get_num_threads()
    if not parallel or len(tasks) < 2 or threads < 2:
        return [task() for task in tasks]
    share = max(1, threads // len(tasks))

    def run(task: Callable[[], Any]) -> Any:
        # Torch counts threads for each Python thread on its own.
        torch.set_num_threads(share)
        return task()

    try:
        with ThreadPoolExecutor(max_workers=min(threads, len(tasks))) as pool:
            futures = [pool.submit(run, task) for task in tasks]
        return [future.result() for future in futures]
    finally:
        torch.set_num_threads(threads)
