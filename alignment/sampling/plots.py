"""Llama 2's Figures 7 and 8 for a version. Equal data give equal bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Without fixed metadata the file would name the time and the library's version.
_METADATA = {"Software": None}


def plot_best_of(rows: Sequence[Mapping[str, float]], path: Path, title: str) -> None:
    """Figure 7: largest and median reward against the number of samples.

    Args:
        rows: from `best_of.curves`.
    """
    figure, axes = _figure()
    counts = [row["n"] for row in rows]
    best = [row["best"] for row in rows]
    error = [row["best_error"] for row in rows]
    axes.plot(counts, best, label="best of n", color="tab:blue")
    low = [b - 1.96 * e for b, e in zip(best, error, strict=True)]
    high = [b + 1.96 * e for b, e in zip(best, error, strict=True)]
    axes.fill_between(counts, low, high, alpha=0.2, color="tab:blue", linewidth=0)
    axes.plot(counts, [row["median"] for row in rows], label="median", color="tab:orange")
    axes.set_xlabel("samples per prompt")
    axes.set_ylabel("combined reward")
    axes.set_title(f"{title}: what sampling more gives")
    axes.legend(loc="center right")
    _save(figure, path)


def plot_temperatures(record: Mapping[str, Any], path: Path, title: str) -> None:
    """Figure 8: best-of-n reward against the temperature, one line per n.

    Args:
        record: content of temperature.json after a search.
    """
    figure, axes = _figure()
    tried = sorted(record["search"], key=lambda one: one["temperature"])
    temperatures = [one["temperature"] for one in tried]
    for place, row in enumerate(tried[0]["curve"]):
        values = [one["curve"][place]["best"] for one in tried]
        axes.plot(temperatures, values, marker="o", label=f"best of {int(row['n'])}")
    axes.axvline(record["temperature"], color="grey", linestyle=":", label="chosen")
    axes.set_xlabel("temperature")
    axes.set_ylabel("combined reward")
    axes.set_title(f"{title}: the best temperature depends on n")
    axes.legend(loc="best", fontsize="small")
    _save(figure, path)


def _figure() -> tuple[Any, Any]:
    # The object interface needs no display and leaves no global state behind.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata=_METADATA)
