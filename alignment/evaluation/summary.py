"""Flat metric names for the tables of an evaluation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignment.config.vocabulary import DOMAINS
from alignment.evaluation.judging import find_rate
from alignment.utils.files import read_json

_JUDGED = ("score/", "win/", "win_")
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


def metric_name(text: str) -> str:
    """`text` with `_` for all characters that MLflow does not allow in a metric's name."""
    return _NOT_A_NAME.sub("_", text)


def carried_figures(earlier: Mapping[str, Path]) -> dict[str, dict[str, float]]:
    """Side → figures of its own evaluation that do not depend on a judge: KL, length, refusals,
    variety."""
    by_side: dict[str, dict[str, float]] = {}
    for version, directory in earlier.items():
        for row in read_json(directory / "standings.json"):
            if row["side"].partition("/")[0] != version:
                continue
            by_side[row["side"]] = {
                name: float("nan") if value is None else value
                for name, value in row["figures"].items()
                if not name.startswith(_JUDGED)
            }
    return by_side


def rate_metrics(rows: list[dict[str, Any]], side: str, others: Sequence[str]) -> dict[str, float]:
    """`win_rate/<judge>/<axis>_vs_<other>` with `_low`, `_high`, `_ties`, `_lc`."""
    figures: dict[str, float] = {}
    for judge in dict.fromkeys(row["judge"] for row in rows):
        for other in others:
            for axis in DOMAINS:
                row = find_rate(rows, side, other, judge, axis)
                if row is None:
                    continue
                name = f"win_rate/{judge}/{axis}_vs_{metric_name(other)}"
                figures[name] = row["win_rate"]
                figures[f"{name}_low"], figures[f"{name}_high"] = row["low"], row["high"]
                figures[f"{name}_ties"], figures[f"{name}_lc"] = row["ties"], row["lc_win_rate"]
    return figures


def category_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """`category/<domain>/<category>` mean scores, and how many categories were forgotten."""
    figures = {
        f"category/{row['domain']}/{metric_name(row['category'])}": float(row["score"])
        for row in rows
    }
    flags = [row["forgotten"] for row in rows if "forgotten" in row]
    if flags:
        figures["forgotten_categories"] = float(sum(flags))
    return figures
