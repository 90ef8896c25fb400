"""What all pictures share: colours, a style, and PNGs with the same bytes for the same figures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe & Ito's colours: told apart by colour-blind readers as well, and in grey.
BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PINK, GREY = "#56B4E9", "#CC79A7", "#6B6B6B"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def new_figure(
    width: float, height: float, ratios: Sequence[float] = (1,)
) -> tuple[Figure, list[Axes]]:
    """A figure with one row of panels.

    Args:
        width, height: inches.
        ratios: relative width of each panel.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, len(ratios), width_ratios=list(ratios), squeeze=False)
    return figure, list(axes[0])


def png(figure: Figure, dpi: int = 100) -> bytes:
    """The figure as PNG; no date, no library version inside."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
