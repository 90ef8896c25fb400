"""What all pictures share: colours, a style, and PNGs with the same bytes for the same figures."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.text import Text

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


def _break_titles(figure: Figure) -> bool:
    """Break titles of a laid-out figure that reach beyond it or into the next panel; whether any
    did."""
    broken = False
    for panel in figure.axes:
        title = panel.get_title(loc="left")
        artists = [one for one in panel.findobj(Text) if one.get_text() == title]
        if not title or "\n" in title or not artists:
            continue
        left = panel.bbox.x0
        ends = [other.bbox.x0 for other in figure.axes if other.bbox.x0 > panel.bbox.x1]
        room = min([figure.bbox.width, *ends]) - left - 4
        wide = artists[0].get_window_extent().width
        if wide > room > 0:
            width = max(8, int(0.95 * len(title) * room / wide))
            panel.set_title(textwrap.fill(title, width), loc="left")
            broken = True
    return broken


def png(figure: Figure, dpi: int = 100) -> bytes:
    """The figure as PNG without date and library version; titles that are too wide are broken."""
    figure.set_dpi(dpi)
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()  # lays it out
    if not _break_titles(figure):
        figure.set_layout_engine(None)  # or it would be laid out again, which takes longest
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()
