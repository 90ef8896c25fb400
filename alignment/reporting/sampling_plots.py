"""Llama 2's Figures 7 and 8 for a version. Equal data give equal bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps

from alignment.reporting.style import new_figure, png


def plot_best_of(rows: Sequence[Mapping[str, float]], path: Path, title: str) -> None:
    """Figure 7: largest and median reward against the number of samples.

    Args:
        rows: from `best_of.curves`.
    """
    figure, (axes,) = new_figure(6.4, 4.0)
    counts = [int(row["n"]) for row in rows]
    best = [row["best"] for row in rows]
    median = [row["median"] for row in rows]
    error = [1.96 * row["best_error"] for row in rows]
    marker = "o" if len(rows) <= 16 else None
    axes.plot(counts, best, label="best of n, 95 % over prompts", color="tab:blue", marker=marker)
    low = [b - e for b, e in zip(best, error, strict=True)]
    high = [b + e for b, e in zip(best, error, strict=True)]
    axes.fill_between(counts, low, high, alpha=0.3, color="tab:blue", linewidth=0)
    axes.plot(counts, median, label="median of n", color="tab:orange", marker=marker)
    axes.fill_between(counts, median, best, alpha=0.07, color="black", linewidth=0)
    if len(counts) > 1:
        axes.set_xscale("log", base=2)
        shown = [n for n in counts if n & (n - 1) == 0 or n == counts[-1]]
        # A last count beside a power of two would print over it.
        shown = [n for n in shown if n == counts[-1] or counts[-1] / n > 1.2]
        axes.set_xticks(shown, [f"{n:g}" for n in shown])
        axes.minorticks_off()
        bounds = {row["n"]: row["kl_bound"] for row in rows}
        top = axes.secondary_xaxis("top")
        top.set_xticks(shown, [f"{bounds[n]:.2f}" for n in shown])
        top.minorticks_off()
        top.set_xlabel("log n − (n−1)/n nats: upper bound of the KL, not measured", fontsize=9)
    axes.set_xlabel("samples per prompt, n")
    axes.set_ylabel("combined reward")
    axes.set_title(f"{title}: what sampling more gives")
    axes.grid(alpha=0.25)
    axes.legend(loc="best")
    path.write_bytes(png(figure, 120))


def plot_temperatures(
    record: Mapping[str, Any], own: Mapping[str, float], path: Path, title: str
) -> None:
    """Figure 8: best-of-n reward against the temperature, one line per n.

    Args:
        record: content of temperature.json after a search.
        own: the last row of `best_of.curves` on the version's own prompts. The chosen temperature
            is the best on the prompts of the search and looks better there than on others.
    """
    figure, (axes,) = new_figure(6.4, 4.0)
    tried = sorted(record["search"], key=lambda one: one["temperature"])
    temperatures = [one["temperature"] for one in tried]
    counts = [int(row["n"]) for row in tried[0]["curve"]]
    shades = _shades(len(counts))
    for place, n in enumerate(counts):
        values = [one["curve"][place]["best"] for one in tried]
        label = "one sample" if n == 1 else f"best of {n}"
        axes.plot(temperatures, values, marker="o", label=label, color=shades[place])
        top = max(range(len(values)), key=values.__getitem__)
        axes.plot(temperatures[top], values[top], "*", markersize=13, color=shades[place])
    error = [1.96 * one["error"] for one in tried]
    last = [one["expected"] for one in tried]
    axes.errorbar(temperatures, last, error, fmt="none", color=shades[-1], alpha=0.5, capsize=3)
    axes.axvline(record["temperature"], color="grey", linestyle=":", label="chosen")
    axes.errorbar(
        [record["temperature"]],
        [own["best"]],
        [1.96 * own["best_error"]],
        fmt="D",
        color="tab:red",
        capsize=3,
        label=f"best of {own['n']:g} on this\nversion's own prompts",
    )
    axes.set_xticks(temperatures, [f"{value:g}" for value in temperatures])
    axes.set_xlabel("temperature (★ best of its line; bars: 95 % over prompts)")
    axes.set_ylabel("expected combined reward")
    axes.set_title(f"{title}: the best temperature depends on n")
    axes.grid(alpha=0.25)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small")
    path.write_bytes(png(figure, 120))


def _shades(count: int) -> list[Any]:
    return [colormaps["viridis"](0.9 - 0.8 * i / max(1, count - 1)) for i in range(count)]
