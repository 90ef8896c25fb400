"""How a long computation tells what it is doing, without knowing who listens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Progress(Protocol):
    """What a stage hands to the library. Implementations must be cheap to call."""

    def begin(self, label: str, total: int | None = None, unit: str = "it") -> None:
        """A new piece of work of `total` units starts."""

    def advance(self, amount: int = 1, **figures: float) -> None:
        """`amount` more units are done; `figures` are shown beside the bar (loss=0.31)."""

    def say(self, message: str) -> None:
        """A line for a person: a fallback taken, a batch halved."""


class SilentProgress:
    """Listens to nothing; the default in tests and scripts."""

    def begin(self, label: str, total: int | None = None, unit: str = "it") -> None:
        return None

    def advance(self, amount: int = 1, **figures: float) -> None:
        return None

    def say(self, message: str) -> None:
        return None


Figures = Mapping[str, float]
