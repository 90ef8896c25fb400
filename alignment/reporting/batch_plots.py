"""The batch report as one picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignment.config.vocabulary import STRENGTHS, version_order
from alignment.preferences.rows import DROPPED
from alignment.preferences.schema import LLAMA2_BINS

_COLOURS = {"helpfulness": "#2b6cb0", "safety": "#c05621"}
SHOWN = 8  # versions and temperatures, the newest


def draw(values: dict[str, Any], path: Path) -> None:
    """Draw strengths, safety bins, who wrote the answers, lengths, turns and what was not accepted
    into `path` (PNG)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 7.2))
    # By hand: an automatic layout would draw everything twice to find the same places.
    figure.subplots_adjust(left=0.06, right=0.985, top=0.87, bottom=0.09, hspace=0.36, wspace=0.4)
    axes = figure.subplots(2, 3)
    rows = values["rows"]
    files = ", ".join(source["file"] for source in values["sources"])
    figure.suptitle(
        f"{files if len(files) < 70 else files[:67] + '…'}  (batch {values['batch']})\n"
        f"{rows['read']:,} read = {rows['accepted']:,} accepted + "
        f"{rows['quarantined']:,} quarantined + {rows['dropped']:,} dropped"
    )
    _strengths(axes[0][0], values)
    _bins(axes[0][1], values)
    _producers(axes[0][2], values)
    _lengths(axes[1][0], values)
    _turns(axes[1][1], values)
    _refused(axes[1][2], values)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
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
    agreement = values["annotators"]["agreement"]
    axis.set_title(
        "How clear the preferences are"
        + ("" if agreement is None else f"\n(annotators agree {agreement:.0%})")
    )
    axis.set_ylim(0, 1.3 * axis.get_ylim()[1])  # room for the legend
    axis.legend(loc="upper right", frameon=False)


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
    axis.set_ylim(0, 1.3 * axis.get_ylim()[1])
    axis.legend(loc="upper right", frameon=False)


def _producers(axis: Any, values: dict[str, Any]) -> None:
    """How often each version and temperature won where it took part."""
    won = {(one["version"], one["temperature"]): one["comparisons"] for one in values["chosen_by"]}
    lost = {
        (one["version"], one["temperature"]): one["comparisons"] for one in values["rejected_by"]
    }
    newer = values["newer_wins"]
    title = "Who wins"
    if newer["share"] is not None:
        title += f": the newer version {newer['share']:.0%}"
        if "low" in newer:  # batches of release 0.1 have none
            title += f" [{newer['low']:.0%}–{newer['high']:.0%}]"
    axis.set_title(title)
    names = sorted(won.keys() | lost.keys(), key=lambda name: (version_order(name[0]), name[1]))
    names = names[-SHOWN:]
    if not names:
        axis.text(0.5, 0.5, "nobody says who wrote the answers", ha="center", va="center")
        axis.set_axis_off()
        return
    totals = [won.get(name, 0) + lost.get(name, 0) for name in names]
    shares = [100 * won.get(name, 0) / total for name, total in zip(names, totals, strict=True)]
    axis.barh(range(len(names)), shares, height=0.7, color="#4a7c59")
    labels = [f"{version}, T {degrees:g}" for version, degrees in names]
    axis.set_yticks(range(len(names)), labels)
    for place, (share, total) in enumerate(zip(shares, totals, strict=True)):
        axis.text(max(share, 50) + 1, place, f"{share:.0f} % of {total:,}", va="center", fontsize=8)
    axis.axvline(50, color="#2d3748", lw=0.8, ls=":")
    axis.set_xlim(0, 110)
    axis.set_ylim(max(len(names), 4) - 0.4, -0.6)
    axis.set_xlabel("% of its comparisons that it won")


def _turns(axis: Any, values: dict[str, Any]) -> None:
    counts = values.get("turn_counts") or {}  # batches taken in by older versions have none
    total = sum(counts.values())
    axis.set_title(f"Turns (mean {values['turns']['mean']:.1f})" if total else "Turns")
    if not total:
        axis.set_axis_off()
        return
    axis.bar(list(counts), [100 * count / total for count in counts.values()], color="#718096")
    axis.set_ylabel("% of comparisons")
    axis.set_xlabel("user turns")


def _lengths(axis: Any, values: dict[str, Any]) -> None:
    names = ("prompt", "chosen", "rejected")
    for place, name in enumerate(names):
        lengths = values[f"{name}_characters"]
        axis.plot(
            [lengths["median"], lengths["p95"]], [place, place], color="#718096", lw=6, alpha=0.4
        )
        axis.plot(lengths["median"], place, "o", color="#2d3748")
        axis.plot(lengths["mean"], place, "|", color="#2d3748", ms=14, mew=2)
    gap = values.get("length_gap_quantiles") or {}
    if gap:
        axis.plot([gap["5"], gap["95"]], [3, 3], color="#b7791f", lw=6, alpha=0.3)
        axis.plot([gap["25"], gap["75"]], [3, 3], color="#b7791f", lw=6, alpha=0.7)
        axis.plot(gap["50"], 3, "o", color="#2d3748")
        axis.plot(values["length_gap"]["mean"], 3, "|", color="#2d3748", ms=14, mew=2)
    axis.axvline(0, color="#2d3748", lw=0.8, ls=":")
    axis.set_yticks(range(4 if gap else 3), (*names, "chosen −\nrejected") if gap else names)
    axis.set_ylim(3.6 if gap else 2.6, -0.6)
    axis.set_xlabel("characters: ● median, | mean, bar to 95 % (gap: 5, 25, 75, 95 %)")
    longer = values["longer_wins"]["share"]
    axis.set_title("Lengths" if longer is None else f"Lengths: the longer answer wins {longer:.0%}")


def _refused(axis: Any, values: dict[str, Any]) -> None:
    ordered = sorted(values["reasons"].items(), key=lambda entry: -entry[1])[:10]
    axis.set_title("Not accepted (red: quarantined, grey: dropped)" if ordered else "Not accepted")
    if not ordered:
        axis.text(0.5, 0.5, "every row was accepted", ha="center", va="center")
        axis.set_axis_off()
        return
    for place, (name, count) in enumerate(ordered):
        colour = "#a0aec0" if name in DROPPED else "#c53030"
        axis.barh(place, count, height=0.7, color=colour)
        axis.text(count, place, f" {count:,}", va="center", fontsize=8)
    axis.set_yticks(range(len(ordered)), [name.replace("_", " ") for name, _ in ordered])
    axis.margins(x=0.12)
    axis.set_ylim(max(len(ordered), 4) - 0.4, -0.6)
    axis.set_xlabel("rows")
