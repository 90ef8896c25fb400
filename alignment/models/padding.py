"""Rows of different lengths as one tensor."""

from __future__ import annotations

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
