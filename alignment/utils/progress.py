"""The interface through which a long computation reports its progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives progress reports. Implementations must be cheap to call."""

    def begin(self, label: str, total: int | None = None, unit: str = "it") -> None:
        """Start a new piece of work of `total` units."""
        return

    def advance(self, amount: int = 1, **figures: float) -> None:
        """Report `amount` more units as done; `figures` (loss=0.31) are shown beside the bar."""
        return

    def say(self, message: str) -> None:
        """Show a line to the user, such as a fallback taken or a batch halved."""
        return


class SilentProgress(Progress):
    """Ignores all reports; the default in tests and scripts."""
