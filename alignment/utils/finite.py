"""The one way in which training gives up: a figure that says the run is lost.

Called before the optimiser's step and before the next checkpoint is written, so that the last good
checkpoint stays where it is.
"""

from __future__ import annotations

import math

from alignment.errors import StageError


def stop_if_not_finite(figure: float, what: str, *, remedy: str) -> None:
    """Go on only with a number.

    Args:
        what: the figure, as the subject of a sentence.
        remedy: what to try.

    Raises:
        StageError: the figure is NaN or infinite.
    """
    if not math.isfinite(figure):
        raise StageError(
            f"training diverged: {what} is not finite ({figure})",
            remedy=f"{remedy}; the last good checkpoint is kept",
        )


def stop_if_exploded(figure: float, limit: float | None, what: str, *, remedy: str) -> None:
    """Go on only with a number that is at most `limit` (None: any number).

    Raises:
        StageError: the figure is not finite, or larger.
    """
    stop_if_not_finite(figure, what, remedy=remedy)
    if limit is not None and figure > limit:
        raise StageError(
            f"training diverged: {what} is {figure:.4g}, beyond the limit of {limit:g}",
            remedy=f"{remedy}; the last good checkpoint is kept",
        )
