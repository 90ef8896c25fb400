"""Stops a training that has diverged.

Call these before the optimiser's step and before the next checkpoint is written, so that the last
good checkpoint is kept.
"""

from __future__ import annotations

import math

from alignment.errors import StageError


def stop_if_not_finite(figure: float, what: str, *, remedy: str) -> None:
    """Check that a figure is finite.

    Args:
        what: a name for it, used as the subject of a sentence.

    Raises:
        StageError: the figure is NaN or infinite.
    """
    if not math.isfinite(figure):
        raise StageError(
            f"training diverged: {what} is not finite ({figure})",
            remedy=f"{remedy}; the last good checkpoint is kept",
        )


def stop_if_exploded(figure: float, limit: float | None, what: str, *, remedy: str) -> None:
    """Check that a figure is finite and at most `limit`; None sets no limit.

    Raises:
        StageError: the figure is not finite, or exceeds the limit.
    """
    stop_if_not_finite(figure, what, remedy=remedy)
    if limit is not None and figure > limit:
        raise StageError(
            f"training diverged: {what} is {figure:.4g}, beyond the limit of {limit:g}",
            remedy=f"{remedy}; the last good checkpoint is kept",
        )
