"""Write the names of points into a picture where there is room (`labels` finds it)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from alignment.reporting.label_placement import Box, Pixel, place_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAR = 22.0  # pixels from which on a line leads from the point to its name


def name_points(
    figure: Figure,
    axis: Axes,
    places: Sequence[tuple[float, float]],
    names: Sequence[str],
    paths: Sequence[Sequence[tuple[float, float]]],
    *,
    size: float,
) -> None:
    """Name the points at `places`; everything in data coordinates, with the axes where they stay.

    Args:
        paths: lines through points, not to be written on.
        size: of the letters, in points.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()
    pixels = [_pixel(axis, place) for place in places]
    segments = [pair for path in paths for pair in pairwise(_pixel(axis, at) for at in path)]
    sizes = []
    for name in names:
        text = axis.text(0, 0, name, fontsize=size)
        extent = text.get_window_extent(renderer)
        sizes.append((extent.width, extent.height))
        text.remove()
    frame = axis.get_window_extent(renderer)
    room = Box(frame.x0, frame.y0, frame.x1, frame.y1)
    boxes = place_labels(pixels, sizes, segments, room)
    for place, pixel, name, box in zip(places, pixels, names, boxes, strict=True):
        centre = axis.transData.inverted().transform(box.centre)
        axis.text(
            centre[0],
            centre[1],
            name,
            ha="center",
            va="center",
            fontsize=size,
            color="#222222",
            zorder=6,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
        if box.distance(pixel) > FAR:
            end = axis.transData.inverted().transform(box.nearest(pixel))
            line = [place[0], end[0]], [place[1], end[1]]
            axis.plot(*line, color="#999999", linewidth=0.8, zorder=3)


def _pixel(axis: Axes, place: tuple[float, float]) -> Pixel:
    x, y = axis.transData.transform(place)
    return float(x), float(y)
