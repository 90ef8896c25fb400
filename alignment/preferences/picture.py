"""The batch report as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignment.preferences.schema import LLAMA2_BINS, STRENGTHS

_COLOURS = {"helpfulness": "#2b6cb0", "safety": "#c05621"}


def draw(values: dict[str, Any], path: Path) -> None:
    """Draw strengths, safety bins, lengths and what was not accepted into `path` (PNG)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7))
    # By hand: an automatic layout would draw everything twice to find the same places.
    figure.subplots_adjust(left=0.16, right=0.97, top=0.9, bottom=0.08, hspace=0.32, wspace=0.42)
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    rows = values["rows"]
    figure.suptitle(
        f"Batch {values['batch']}: {rows['read']:,} read, {rows['accepted']:,} accepted, "
        f"{rows['quarantined']:,} quarantined, {rows['dropped']:,} dropped"
    )
    _strengths(axes[0][0], values)
    _bins(axes[0][1], values)
    _lengths(axes[1][0], values)
    _refused(axes[1][1], values)
    # No software version or date in the file: the same report gives the same bytes.
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _strengths(axis: Any, values: dict[str, Any]) -> None:
    domains = values["strengths"]
    width = 0.8 / max(len(domains), 1)
    for number, (domain, counts) in enumerate(domains.items()):
        total = sum(counts.values())
        heights = [100 * counts[name] / total for name in STRENGTHS]
        places = [index + number * width for index in range(len(STRENGTHS))]
        label = f"{domain} ({total:,})"
        axis.bar(places, heights, width, label=label, color=_COLOURS[domain], align="edge")
    axis.set_xticks([index + 0.4 for index in range(len(STRENGTHS))], STRENGTHS)
    axis.set_ylabel("% of comparisons")
    axis.set_title("How clear the preferences are")
    axis.legend(loc="upper right")


def _bins(axis: Any, values: dict[str, Any]) -> None:
    counts = values["safety_bins"]
    total = sum(counts.values())
    axis.set_title("Safety bins" if total else "Safety bins (none labelled)")
    names = list(LLAMA2_BINS)
    if total:
        ours = [100 * counts[name] / total for name in names]
        axis.bar(
            range(3),
            ours,
            0.4,
            label=f"this batch ({total:,})",
            color=_COLOURS["safety"],
            align="edge",
        )
    paper = [100 * LLAMA2_BINS[name] for name in names]
    axis.bar(
        [place + 0.4 for place in range(3)],
        paper,
        0.4,
        label="Llama 2",
        color="#a0aec0",
        align="edge",
    )
    axis.set_xticks([0.4, 1.4, 2.4], [name.replace("_", " ") for name in names])
    axis.set_ylabel("% of labelled comparisons")
    axis.set_ylim(0, 1.3 * axis.get_ylim()[1])  # room for the legend
    axis.legend(loc="upper right")


def _lengths(axis: Any, values: dict[str, Any]) -> None:
    names = ("prompt", "chosen", "rejected")
    figures = [values[f"{name}_characters"] for name in names]
    for place, found in enumerate(figures):
        axis.plot([found["median"], found["p95"]], [place, place], color="#718096", lw=6, alpha=0.4)
        axis.plot(found["median"], place, "o", color="#2d3748")
        axis.plot(found["mean"], place, "|", color="#2d3748", ms=14, mew=2)
    axis.set_yticks(range(3), names)
    axis.set_ylim(2.6, -0.6)
    axis.set_xlabel("characters: median (dot), mean (line), up to the 95th percentile (bar)")
    longer = values["longer_wins"]["share"]
    axis.set_title("Lengths" if longer is None else f"Lengths; the longer answer wins {longer:.0%}")


def _refused(axis: Any, values: dict[str, Any]) -> None:
    ordered = sorted(values["reasons"].items(), key=lambda entry: -entry[1])[:10]
    axis.set_title("Not accepted")
    if not ordered:
        axis.text(0.5, 0.5, "every row was accepted", ha="center", va="center")
        axis.set_axis_off()
        return
    axis.barh(
        [name.replace("_", " ") for name, _ in ordered],
        [count for _, count in ordered],
        height=0.7,
        color="#718096",
    )
    axis.set_ylim(max(len(ordered), 4) - 0.4, -0.6)
    axis.set_xlabel("rows")
