"""How much is done at the same time on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

# One token a row of a small model makes operations too short to be split between threads: with
# a thread per batch every core has work of its own.
_SMALL = 50_000_000


@contextmanager
def crew(model: Any) -> Iterator[int]:
    """The number of worker threads that pays for `model`; torch uses one thread in each of them.

    More than one for small models on a CPU only. The number of torch threads is restored.
    """
    threads = torch.get_num_threads()
    small = sum(parameter.numel() for parameter in model.parameters()) < _SMALL
    if threads == 1 or not small or next(model.parameters()).device.type != "cpu":
        yield 1
        return
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def side_by_side(model: Any, calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """Results of independent calls that run models like `model`, at once where that pays."""
    with crew(model) as workers:
        if workers == 1:
            return [call() for call in calls]
        with ThreadPoolExecutor(workers) as pool:
            return list(pool.map(lambda call: call(), calls))
