"""The way from SFT to the last version on helpfulness × safety axes (Llama 2, Fig 11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Ellipse

from alignment.config.vocabulary import DOMAINS
from alignment.evaluation.responses import NO_PPO
from alignment.reporting.comparison import Comparison
from alignment.reporting.headline import JUDGE_TITLES
from alignment.reporting.plots import short
from alignment.reporting.point_labels import name_points
from alignment.reporting.style import BLUE, GREEN, GREY, ORANGE, STYLE, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Point:
    """A side on the plane of two win rates, in percent, with its intervals."""

    side: str
    x: float
    y: float
    x_low: float
    x_high: float
    y_low: float
    y_high: float


def points(comparison: Comparison, judge: str) -> list[Point]:
    """The policies that `judge` compared with SFT on both axes, in order."""
    sides = []
    for entry in comparison.policies:
        values = [
            entry.figures.get(f"win/{judge}/{axis}{end}")
            for axis in DOMAINS
            for end in ("", "_low", "_high")
        ]
        if any(value is None for value in values):
            continue
        x, x_low, x_high, y, y_low, y_high = (100 * value for value in values if value is not None)
        sides.append(Point(entry.side, x, y, x_low, x_high, y_low, y_high))
    return sides


def panels(comparison: Comparison) -> list[str]:
    """The judges that compared at least two policies on both axes: without any, no picture."""
    return [judge for judge in comparison.judges if len(points(comparison, judge)) > 1]


def path_picture(comparison: Comparison) -> bytes:
    """The way from SFT to the last version on helpfulness × safety axes (Llama 2, Fig 11).

    One panel per judge: judges may disagree, and the reward models are the ones that training
    climbed. Ellipses are the intervals of both rates; the rates come from different prompts, so
    they are independent and the ellipses upright.
    """
    judges = panels(comparison)
    if not judges:
        raise ValueError("no judge has compared two versions on both axes")
    with mpl.rc_context(STYLE):
        width = 12.0 if len(judges) > 1 else 7.2
        figure = Figure(figsize=(width, 6.6))
        # Places by hand: a layout engine would draw everything twice.
        edges = {"left": 0.72 / width, "right": 1 - 0.12 / width, "bottom": 0.1, "top": 0.87}
        figure.subplots_adjust(**edges, wspace=0.17)
        axes = list(figure.subplots(1, len(judges), squeeze=False)[0])
        limits = _limits([point for judge in judges for point in points(comparison, judge)])
        for axis, judge in zip(axes, judges, strict=True):
            _path_panel(axis, comparison, judge, limits)
        handles = _legend(comparison)
        figure.legend(handles=handles, loc="upper right", ncols=3, fontsize=11)
        for axis, judge in zip(axes, judges, strict=True):
            axis.apply_aspect()
            own = points(comparison, judge)
            places = [(point.x, point.y) for point in own]
            titles = [short(point.side) for point in own]
            name_points(figure, axis, places, titles, [places], size=12.5)
        return png(figure)


def _path_panel(
    axis: Axes, comparison: Comparison, judge: str, limits: tuple[float, float]
) -> None:
    sides = points(comparison, judge)
    for point in sides:
        colour = _colour(comparison, point.side)
        if point.side != "sft":  # its rate against itself is ½ by definition
            axis.add_patch(_interval(point, colour, filled=True))
            axis.add_patch(_interval(point, colour, filled=False))
        axis.scatter(
            [point.x],
            [point.y],
            s=150 if point.side == comparison.champion else 80,
            marker="*" if point.side == comparison.champion else "o",
            color="white" if point.side.endswith(NO_PPO) else colour,
            edgecolors=colour,
            linewidths=2,
            zorder=4,
        )
    for before, after in pairwise(sides):
        axis.annotate(
            "",
            xy=(after.x, after.y),
            xytext=(before.x, before.y),
            arrowprops={
                "arrowstyle": "-|>",
                "color": "#555555",
                "linewidth": 1.4,
                "shrinkA": 6,
                "shrinkB": 6,
            },
            zorder=3,
        )
    axis.axhline(50, color="#999999", linewidth=1, linestyle=(0, (4, 4)), zorder=1)
    axis.axvline(50, color="#999999", linewidth=1, linestyle=(0, (4, 4)), zorder=1)
    axis.set_xlim(limits)
    axis.set_ylim(limits)
    axis.set_aspect("equal", adjustable="box")
    axis.set_xlabel("helpfulness: win rate against SFT, %")
    axis.set_ylabel("safety: win rate against SFT, %")
    title = JUDGE_TITLES.get(judge, judge)
    own = f"reward models of {short(comparison.newest)}" if judge == "rm" else title
    axis.set_title(f"judged by {own}")


def _colour(comparison: Comparison, side: str) -> str:
    if side == comparison.champion:
        return GREEN
    if side == "sft":
        return GREY
    return ORANGE if side.endswith(NO_PPO) else BLUE


def _interval(point: Point, colour: str, *, filled: bool) -> Ellipse:
    return Ellipse(
        ((point.x_low + point.x_high) / 2, (point.y_low + point.y_high) / 2),
        max(point.x_high - point.x_low, 0.3),
        max(point.y_high - point.y_low, 0.3),
        facecolor=colour if filled else "none",
        edgecolor="none" if filled else colour,
        alpha=0.06 if filled else 0.55,
        linewidth=1.1,
        zorder=2,
    )


def _limits(sides: Sequence[Point]) -> tuple[float, float]:
    """One square range for all panels, so that judges can be compared by eye."""
    low = min(48.0, *(min(p.x_low, p.y_low) for p in sides))
    high = max(60.0, *(max(p.x_high, p.y_high) for p in sides))
    room = 0.07 * (high - low)
    return max(low - room, -4), min(high + room, 104)


def _legend(comparison: Comparison) -> list[Line2D]:
    def mark(colour: str, marker: str, label: str, face: str | None = None) -> Line2D:
        return Line2D(
            [],
            [],
            linestyle="none",
            marker=marker,
            markersize=13 if marker == "*" else 8,
            color=colour,
            markerfacecolor=face or colour,
            label=label,
        )

    handles = [mark(BLUE, "o", f"version, {100 * comparison.level:g} % interval")]
    if any(entry.side.endswith(NO_PPO) for entry in comparison.entries):
        handles.append(mark(ORANGE, "o", "before PPO", "white"))
    if comparison.champion:
        handles.append(mark(GREEN, "*", "champion"))
    return handles
