"""Pictures, drawn without a display and with the same bytes for the same figures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from alignment.evaluation.responses import side_title
from alignment.reporting.comparison import Comparison
from alignment.reporting.headline import JUDGE_TITLES
from alignment.reporting.point_labels import name_points
from alignment.reporting.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    SKY,
    STYLE,
    new_figure,
    png,
)

Curve = list[tuple[float, float]]
"""(x, y) points."""


@dataclass(frozen=True)
class Picture:
    """A PNG and what it shows in words."""

    png: bytes
    alt: str

    @property
    def uri(self) -> str:
        """The picture itself as an address, so that a page needs no other file."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def short(side: str) -> str:
    """`V5 (no PPO)`: what fits beside a point."""
    title = side_title(side)
    return title.replace("rlhf-v", "V") if title.startswith("rlhf-v") else title.upper()


def winrate_matrix(comparison: Comparison, judge: str, axis_name: str) -> bytes:
    """Rate of the row's version over the column's, in percent, as a coloured table."""
    from alignment.evaluation.judging import find_rate

    sides = [entry.side for entry in comparison.entries]
    values = np.full((len(sides), len(sides)), np.nan)
    for i, a in enumerate(sides):
        for j, b in enumerate(sides):
            row = find_rate(comparison.winrates, a, b, judge, axis_name) if a != b else None
            if row is not None:
                values[i, j] = 100 * row["win_rate"]
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        size = 2.4 + 0.78 * len(sides)
        figure, (axis,) = new_figure(size + 0.6, size)
        axis.imshow(values, cmap="PRGn", vmin=0, vmax=100)
        titles = [side_title(side).replace(" (", "\n(") for side in sides]
        axis.set_xticks(range(len(sides)), titles, rotation=40, ha="right", fontsize=11)
        axis.set_yticks(range(len(sides)), titles, fontsize=11)
        axis.spines[:].set_visible(False)
        for (i, j), value in np.ndenumerate(values):
            if not np.isnan(value):
                dark = abs(value - 50) > 33
                axis.text(
                    j,
                    i,
                    f"{value:.0f}",
                    ha="center",
                    va="center",
                    color="white" if dark else "#222222",
                )
        axis.set_title(f"{axis_name}: row beats column, % ({JUDGE_TITLES.get(judge, judge)})")
        return png(figure)


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    x: str,
    y: str,
    ticks: Sequence[str] | None = None,
    percent: bool = False,
    markers: bool = True,
    names: Sequence[str] = (),
) -> bytes:
    """Curves with names: `series` maps a name to its (x, y) points.

    Args:
        ticks: what stands at x = 0, 1, 2, …
        percent: y values are shares.
        names: of the points, written beside those of the first curve that has as many.
    """
    colours = (BLUE, RED, GREEN, ORANGE, PINK, SKY, GREY)
    styles = ("-", "--", ":")
    with mpl.rc_context(STYLE):
        figure, (axis,) = new_figure(7.2, 4.4)
        for index, (name, curve) in enumerate(series.items()):
            xs, ys = zip(*curve, strict=True)
            axis.plot(
                xs,
                [100 * value for value in ys] if percent else ys,
                label=name,
                color=colours[index % len(colours)],
                linestyle=styles[(index // len(colours)) % len(styles)],
                marker="o" if markers else None,
                markersize=5,
                linewidth=1.8,
            )
        if ticks is not None:
            axis.set_xticks(range(len(ticks)), ticks, rotation=25 if len(ticks) > 5 else 0)
        axis.set_title(title)
        axis.set_xlabel(x)
        axis.set_ylabel(y)
        if len(series) > 1:
            axis.legend(fontsize=10, ncols=1 if len(series) < 6 else 2)
        scale = 100 if percent else 1
        curves = [[(px, scale * py) for px, py in curve] for curve in series.values()]
        named = next((curve for curve in curves if names and len(curve) == len(names)), None)
        if named is not None:
            figure.draw_without_rendering()  # the layout comes first
            limits = axis.get_xlim(), axis.get_ylim()
            name_points(figure, axis, named, names, curves, size=10)
            axis.set(xlim=limits[0], ylim=limits[1])
        return png(figure)


def histograms(values: Mapping[str, np.ndarray], *, title: str, x: str) -> bytes:
    """One row per version on a common axis (Llama 2, Fig 20: they should move right)."""
    together = np.concatenate([rewards for rewards in values.values() if len(rewards)])
    low, high = np.quantile(together, [0.002, 0.998])
    pad = 0.04 * (high - low) or 0.5
    edges = np.linspace(low - pad, high + pad, 41)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.9 + 0.72 * len(values)), layout="constrained")
        axes = figure.subplots(len(values), 1, sharex=True, squeeze=False)[:, 0]
        for index, (axis, (name, rewards)) in enumerate(zip(axes, values.items(), strict=True)):
            axis.hist(np.clip(rewards, edges[0], edges[-1]), bins=edges, color=BLUE, alpha=0.75)
            axis.axvline(float(np.mean(rewards)), color=RED, linewidth=1.6)
            axis.set_yticks([])
            axis.grid(visible=False)
            axis.spines["left"].set_visible(False)
            axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=11)
            if index == 0:
                axis.set_title(title)
        axes[-1].set_xlabel(f"{x} (red: mean)")
        return png(figure)
