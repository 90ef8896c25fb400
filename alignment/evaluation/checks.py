"""One condition of the promotion gate, and which figures a condition may be worked out from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

Figures = Mapping[str, float | None]
"""Figures of one side, by name; None or absent where nothing was measured."""


@dataclass(frozen=True)
class Check:
    """One condition of the gate. `value` is None if nothing was measured, `bound` if the condition
    has no bound."""

    name: str
    value: float | None
    bound: float | None
    ok: bool
    said: str
    """The check in words, with its numbers."""


def finite(value: float | None) -> float | None:
    """The value if it is a number."""
    return value if value is not None and math.isfinite(value) else None


def share(value: float | None) -> float | None:
    """The value if it is a share."""
    return value if value is not None and 0 <= value <= 1 else None
