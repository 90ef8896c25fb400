"""Rows of different lengths as one tensor, and how many of them at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch


def pad(
    rows: Sequence[Sequence[float]], value: float, *, width: int | None = None, left: bool = False
) -> torch.Tensor:
    """Rows filled up to one width with `value`: int64 (rows, width), float32 if `value` is a float.

    What is in a row is never cut and keeps its order; no row at all gives (0, width).

    Args:
        width: of the result; the longest row's without.
        left: fill up before a row, so that all end in the last column, instead of behind it.

    Raises:
        ValueError: a row is longer than `width`.
    """
    longest = max((len(row) for row in rows), default=0)
    width = longest if width is None else width
    if longest > width:
        raise ValueError(f"a row of {longest} does not fit into {width}")
    kind = np.float32 if isinstance(value, float) else np.int64
    padded = np.full((len(rows), width), value, dtype=kind)
    for number, row in enumerate(rows):
        start = width - len(row) if left else 0
        padded[number, start : start + len(row)] = row
    return torch.from_numpy(padded)


def micro_batches(
    lengths: Sequence[int],
    max_tokens: int,
    *,
    sizes: Sequence[int] | None = None,
    even: bool = False,
) -> list[list[int]]:
    """Numbers of the units of each forward pass, shortest first.

    Every unit is in exactly one batch and never cut. A batch has at most `max_tokens` tokens,
    padding counted, unless it is a single unit. Equal arguments give equal batches; units of one
    length keep their order.

    Args:
        lengths: longest row of each unit.
        sizes: rows of each unit; one without.
        even: batches of about the same size, instead of full ones and a small last one; there
            may be one more.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))

    def cut(enough: float) -> list[list[int]]:
        batches: list[list[int]] = []
        rows = 0
        for i in order:
            size = 1 if sizes is None else sizes[i]
            fits = batches and (rows + size) * lengths[i] <= max_tokens
            if fits and rows * lengths[batches[-1][-1]] < enough:
                batches[-1].append(i)
                rows += size
            else:
                batches.append([i])
                rows = size
        return batches

    batches = cut(math.inf)
    if not even or len(batches) < 2:
        return batches
    tokens = [
        lengths[batch[-1]] * sum(1 if sizes is None else sizes[i] for i in batch)
        for batch in batches
    ]
    return cut(sum(tokens) / len(tokens))
