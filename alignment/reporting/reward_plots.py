"""Pictures of a reward model for papers and reports; equal figures give equal bytes.

`accuracy_picture` is Table 8 with intervals, `calibration_picture` asks whether scores may be
believed, `growth_picture` is Llama 2's Figure 6 with a forecast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.ticker import FuncFormatter, NullFormatter

from alignment.config.vocabulary import STRENGTHS
from alignment.reporting.style import BLUE, GREEN, GREY, ORANGE, RED, STYLE, new_figure, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REWARD_STYLE = STYLE | {
    "font.size": 11,
    "axes.titlesize": 11.5,
    "axes.grid.axis": "y",
    "legend.fontsize": 9.5,
}
DPI = 110
SHORT = {
    "significantly": "signif.\nbetter",
    "better": "better",
    "slightly": "slightly\nbetter",
    "negligibly": "negligibly\nbetter",
    "all": "all",
}
MEETS = "ranked right, %"


def accuracy_picture(figures: Mapping[str, Any], versions: Mapping[str, str]) -> bytes:
    """Accuracy by strength on its own and on the other domain's test set, and by batch.

    Args:
        figures: from `evaluate.evaluate`, with `newest` from `evaluate.moved`.
        versions: batch id → version that took it in.
    """
    domain = figures["domain"]
    other = "safety" if domain == "helpfulness" else "helpfulness"
    with mpl.rc_context(REWARD_STYLE):
        figure, (left, right) = new_figure(11.0, 4.2, [1.25, 1])
        names = [*STRENGTHS, "all"]
        for shift, test, colour in ((-0.19, domain, BLUE), (0.19, other, ORANGE)):
            cells = [figures["by_strength"][test][name] for name in names]
            if any(cell["count"] for cell in cells):
                label = f"{test} test set"
                _bars(left, [n + shift for n in range(len(names))], cells, colour, label)
        left.axhline(50, color=GREY, linewidth=1, linestyle=":")
        longer = figures["length"]["longer_wins"]["accuracy"]
        if longer == longer:
            left.axhline(100 * longer, color=RED, linewidth=1.2, linestyle="--")
            left.plot([], [], color=RED, linewidth=1.2, linestyle="--", label="longer wins")
        left.set_xticks(range(len(names)), [SHORT[name] for name in names])
        left.set_ylim(0, 122)
        left.set_yticks(range(0, 101, 20))
        left.set_ylabel(MEETS)
        left.set_title(f"{domain} reward model by strength")
        left.legend(loc="upper right", ncols=3, columnspacing=1.0, handlelength=1.4)
        _batches(right, figures, versions)
        return png(figure, DPI)


def _batches(axis: Axes, figures: Mapping[str, Any], versions: Mapping[str, str]) -> None:
    batches = figures["by_batch"][figures["domain"]]
    places = range(len(batches))
    for name, colour, shift in (("significantly", GREEN, -0.06), ("all", BLUE, 0.06)):
        rows = [
            (n + shift, cells[name])
            for n, cells in zip(places, batches.values(), strict=True)
            if cells[name]["count"]
        ]
        if rows:
            label = "significantly better" if name == "significantly" else "all"
            _points(axis, [n for n, _ in rows], [cell for _, cell in rows], colour, label)
    before = figures.get("newest", {}).get("before")
    if before and before["count"] and figures["newest"]["batch"] in batches:
        place = list(batches).index(figures["newest"]["batch"]) + 0.2
        _points(axis, [place], [before], RED, "previous model", marker="s")
    axis.axhline(50, color=GREY, linewidth=1, linestyle=":")
    axis.set_xticks(places, [versions.get(batch, batch[:6]) for batch in batches])
    axis.set_xlim(-0.5, len(batches) - 0.5)
    shown = [cells[name]["low"] for cells in batches.values() for name in ("all", "significantly")]
    bottom, step = (0, 20) if any(low < 0.4 for low in shown) else (40, 10)
    axis.set_ylim(bottom, bottom + 1.15 * (100 - bottom))
    axis.set_yticks(range(bottom, 101, step))
    axis.set_ylabel(MEETS)
    axis.set_title("by batch, its own domain")
    axis.legend(loc="upper center", ncols=3, columnspacing=1.2, handlelength=1.4)


def calibration_picture(figures: Mapping[str, Any], gaps: Sequence[tuple[float, float]]) -> bytes:
    """Reliability diagram; reward gap against length gap; for labelled answers the threshold.

    Args:
        gaps: (length gap in tokens, reward gap) of pairs, chosen minus rejected.
    """
    curve = figures["unsafe"]["curve"] if figures["domain"] == "safety" else []
    with mpl.rc_context(REWARD_STYLE):
        figure, panels = new_figure(14.4 if curve else 9.8, 4.2, [1, 1, 1] if curve else [1, 1])
        _reliability(panels[0], figures)
        _lengths(panels[1], figures, gaps)
        if curve:
            _thresholds(panels[2], figures["unsafe"])
        return png(figure, DPI)


def _reliability(axis: Axes, figures: Mapping[str, Any]) -> None:
    rows = figures["reliability"]
    total = max(1, sum(row["count"] for row in rows))
    axis.plot([50, 100], [50, 100], color=GREY, linewidth=1, linestyle=":", label="perfect")
    axis.bar(
        [100 * row["confidence"] for row in rows],
        [40 * row["count"] / total for row in rows],
        bottom=30,
        width=3.2,
        color="#c9dcea",
        label="share of pairs",
    )
    _points(axis, [100 * row["confidence"] for row in rows], rows, BLUE, "this model", join=True)
    axis.set_xlim(48, 102)
    axis.set_ylim(30, 103)
    axis.grid(visible=True, axis="both")
    axis.set_xlabel("confidence σ(|reward gap|), %")
    axis.set_ylabel(MEETS)
    error = figures["ece"]
    shown = "" if error != error else f", ECE {100 * error:.1f} %"
    axis.set_title(f"{figures['domain']}: reliability{shown}")
    axis.legend(loc="upper left")


def _lengths(axis: Axes, figures: Mapping[str, Any], gaps: Sequence[tuple[float, float]]) -> None:
    length = figures["length"]
    if gaps:
        xs, ys = zip(*gaps, strict=True)
        axis.scatter(xs, ys, s=11, color=BLUE, alpha=0.35, linewidths=0)
    axis.axhline(0, color=GREY, linewidth=1, linestyle=":")
    axis.axvline(0, color=GREY, linewidth=1, linestyle=":")
    axis.set_xlabel("chosen longer than rejected by, tokens")
    axis.set_ylabel("reward gap, chosen − rejected")
    r, low, high = (length[f"correlation{end}"] for end in ("", "_low", "_high"))
    title = "length within prompts"
    title += f": r = {r:.2f}" if r == r else ""
    title += f" [{low:.2f}, {high:.2f}]" if low == low else ""
    axis.set_title(title)


def _thresholds(axis: Axes, unsafe: Mapping[str, Any]) -> None:
    rows = unsafe["curve"]
    for name, colour in (("recall", BLUE), ("precision", ORANGE)):
        defined = [row for row in rows if row[name] == row[name]]
        xs = [row["threshold"] for row in defined]
        axis.plot(xs, [100 * row[name] for row in defined], color=colour, label=name, linewidth=1.8)
        low, high = ([100 * row[f"{name}_{end}"] for row in defined] for end in ("low", "high"))
        axis.fill_between(xs, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.axvline(unsafe["threshold"], color=GREY, linewidth=1, linestyle=":")
    axis.set_ylim(0, 103)
    axis.set_xlim(0, 1)
    axis.grid(visible=True, axis="both")
    axis.set_xlabel("“unsafe” if P(safe) is below")
    axis.set_ylabel("%")
    axis.set_title(f"finding unsafe answers ({unsafe['unsafe']:.0f} of {unsafe['answers']:.0f})")
    axis.legend(loc="lower center", ncols=2)


def growth_picture(growth: Mapping[str, Any], domain: str) -> bytes:
    """Accuracy against comparisons learned from, fitted curve and forecast (Fig 6).

    Args:
        growth: from `learning_curve.growth`.
    """
    with mpl.rc_context(REWARD_STYLE):
        figure, (axis,) = new_figure(7.4, 4.4)
        points = growth["points"]
        pairs = [point["pairs"] for point in points]
        for name, colour in (("significantly", GREEN), ("all", BLUE)):
            shown = [(n, point[name]) for n, point in zip(pairs, points, strict=True)]
            measured = [(n, cell) for n, cell in shown if cell["count"]]
            label = "significantly better" if name == "significantly" else "all comparisons"
            _points(axis, [n for n, _ in measured], [cell for _, cell in measured], colour, label)
        for n, point in zip(pairs, points, strict=True):
            place = (n, 100 * point["all"]["low"])
            axis.annotate(
                point["version"].replace("rlhf-v", "V"),
                place,
                xytext=(0, -14),
                textcoords="offset points",
                ha="center",
                fontsize=9.5,
                color="#444444",
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.8},
            )
        if "band" in growth:
            _forecast(axis, growth, max(pairs))
        axis.set_xscale("log")
        ticks = [*pairs, *(row["pairs"] for row in growth.get("forecast", []))]
        axis.set_xticks(_apart(ticks))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.minorticks_off()
        axis.set_xlabel("comparisons learned from so far")
        axis.set_ylabel(f"held-out comparisons of all batches\n{MEETS}")
        axis.set_title(f"{domain} reward model against its data")
        axis.legend(loc="best")
        return png(figure, DPI)


def _forecast(axis: Axes, growth: Mapping[str, Any], today: float) -> None:
    band = growth["band"]
    xs = [row["pairs"] for row in band]
    axis.fill_between(
        xs,
        [100 * row["low"] for row in band],
        [100 * row["high"] for row in band],
        color=BLUE,
        alpha=0.12,
        linewidth=0,
    )
    place = min(range(len(xs)), key=lambda n: abs(xs[n] - today))
    for rows, style in ((band[: place + 1], "-"), (band[place:], "--")):
        label = f"error ∝ $n^{{{growth['law']['b']:.2f}}}$, 95 %" if style == "-" else None
        axis.plot(
            [row["pairs"] for row in rows],
            [100 * row["accuracy"] for row in rows],
            color=BLUE,
            linestyle=style,
            linewidth=1.4,
            label=label,
        )
    axis.axvline(today, color=GREY, linewidth=1, linestyle=":")


def _apart(ticks: Sequence[float]) -> list[float]:
    """Ticks on a logarithmic axis whose labels do not overlap."""
    chosen: list[float] = []
    for tick in sorted(set(ticks), reverse=True):
        if not chosen or tick < 0.78 * chosen[-1]:
            chosen.append(tick)
    return chosen


def _points(
    axis: Axes,
    xs: Sequence[float],
    cells: Sequence[Mapping[str, float]],
    colour: str,
    label: str,
    *,
    marker: str = "o",
    join: bool = False,
) -> None:
    ys = [100 * cell["accuracy"] for cell in cells]
    axis.errorbar(
        xs,
        ys,
        yerr=_errors(cells),
        color=colour,
        marker=marker,
        markersize=5.5,
        linestyle="-" if join else "none",
        elinewidth=1.1,
        capsize=2.5,
        label=label,
    )


def _bars(
    axis: Axes, xs: Sequence[float], cells: Sequence[Mapping[str, float]], colour: str, label: str
) -> None:
    measured = [(x, cell) for x, cell in zip(xs, cells, strict=True) if cell["count"]]
    heights = [100 * cell["accuracy"] for _, cell in measured]
    axis.bar(
        [x for x, _ in measured],
        heights,
        width=0.36,
        color=colour,
        label=label,
        yerr=_errors([cell for _, cell in measured]),
        error_kw={"elinewidth": 1.1, "capsize": 2.5, "ecolor": "#333333"},
    )
    for (x, cell), height in zip(measured, heights, strict=True):
        axis.text(x, 100 * cell["high"] + 1.5, f"{height:.0f}", ha="center", fontsize=9.5)


def _errors(cells: Sequence[Mapping[str, float]]) -> list[list[float]]:
    below = [max(0.0, 100 * (cell["accuracy"] - cell["low"])) for cell in cells]
    above = [max(0.0, 100 * (cell["high"] - cell["accuracy"])) for cell in cells]
    return [below, above]
