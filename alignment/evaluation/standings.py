"""The figures of each side: its own scores, refusals, length and variety, and flat metric names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from alignment.config.vocabulary import DOMAINS
from alignment.evaluation.bound_checks import refusals_measurable, rise_name
from alignment.evaluation.judging import Row, by_prompt, find_rate
from alignment.evaluation.responses import judges_of, subject_numbers
from alignment.evaluation.textstats import distinct_n, repeated_share
from alignment.evaluation.winrate import LEVEL
from alignment.utils.files import read_json
from alignment.utils.seeds import derive_seed
from alignment.utils.statistics import (
    Interval,
    bootstrap_mean,
    clustered_rate,
    paired_difference,
    wilson,
)

Figures = dict[str, float]

_JUDGED = ("score/", "win/", "win_")
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9_.-]+")


def bounded(name: str, interval: Interval) -> Figures:
    """`name`, `name_low`, `name_high`."""
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def refusal_figures(table: pd.DataFrame) -> Figures:
    """Refusal rates with Wilson intervals (Llama 2 §4.4 reports the first two).

    * `false_refusal`: on borderline prompts, or on all helpfulness prompts if none is borderline.
      NaN where phrases decide and match none of the answers to these and to safety prompts: they
      may be refusals in other words, or in another language.
    * `refusal_helpful`: on the other helpfulness prompts.
    * `refusal_harmful`: on safety prompts, where a refusal is mostly right.
    * `harmful`: share of safety prompts answered with harmful advice (built-in world only).
    """
    helpful = table[table.domain == "helpfulness"]
    kinds = judged_kinds(table)
    figures: Figures = {}
    for name, rows in (
        ("false_refusal", kinds["borderline"]),
        ("refusal_helpful", helpful[~helpful.borderline]),
        ("refusal_harmful", kinds["harmful"]),
    ):
        if len(rows):
            figures |= bounded(name, _share(rows, "refused"))
    if "harmful" in table:
        figures |= bounded("harmful", _share(kinds["harmful"], "harmful"))
    elif not refusals_measurable(figures):
        figures |= bounded("false_refusal", Interval(math.nan, math.nan, math.nan))
    return figures


def refusal_rises(table: pd.DataFrame, rivals: Mapping[str, pd.DataFrame]) -> Figures:
    """`false_refusal_rise/<rival>`: how much more often a side refuses borderline prompts than a
    rival, with an interval over the prompts that both answered; none where there are none."""
    own, figures = by_prompt(judged_kinds(table)["borderline"]), Figures()
    for name, other in rivals.items():
        theirs = by_prompt(other).refused
        rows = own[own.index.isin(theirs.index)]
        if len(rows):
            before = theirs[rows.index].to_numpy(float)
            after, subjects = rows.refused.to_numpy(float), subject_numbers(rows)
            rise = paired_difference(after, before, subjects, level=LEVEL)
            figures |= bounded(rise_name(name), rise)
    return figures


def judged_kinds(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """`borderline`: prompts that must not be refused, all of helpfulness if none is borderline;
    `harmful`: safety prompts."""
    helpful = table[table.domain == "helpfulness"]
    borderline = helpful[helpful.borderline]
    return {
        "borderline": borderline if len(borderline) else helpful,
        "harmful": table[table.domain == "safety"],
    }


def _share(rows: pd.DataFrame, column: str) -> Interval:
    """The share of rows of which `column` is true, with Wilson's interval over what is
    independent."""
    subjects = subject_numbers(rows)
    if subjects is None:
        return wilson(float(rows[column].sum()), len(rows), level=LEVEL)
    return clustered_rate(rows[column].to_numpy(float), subjects, level=LEVEL)


def text_figures(table: pd.DataFrame) -> Figures:
    """Length, share without EOS, variety and repetition of the answers."""
    texts = list(table.text)
    return {
        "length": float(table.n_tokens.mean()),
        "length_p90": float(table.n_tokens.quantile(0.9)),
        "length_chars": float(table.text.str.len().mean()),
        "no_eos": float((~table.finished).mean()),
        "distinct_1": distinct_n(texts, 1),
        "distinct_2": distinct_n(texts, 2),
        "repeated_4grams": repeated_share(texts),
    }


def score_figures(table: pd.DataFrame, *, seed: int, samples: int) -> Figures:
    """Mean score by every judge, each axis on its own prompts, with bootstrap intervals."""
    figures: Figures = {}
    for judge in judges_of(table):
        for axis in DOMAINS:
            rows = table[table.domain == axis]
            scores = rows[f"{judge}_{axis}"].to_numpy(float)
            if len(scores):
                interval = bootstrap_mean(
                    scores,
                    seed=derive_seed(seed, "bootstrap", axis),
                    samples=samples,
                    level=LEVEL,
                    clusters=subject_numbers(rows),
                )
                figures |= bounded(f"score/{judge}/{axis}", interval)
    return figures


def json_figures(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Figures at six significant digits, null for NaN, so that digests of files are stable."""
    return {
        name: float(f"{value:.6g}") if math.isfinite(value) else None
        for name, value in figures.items()
    }


def metric_name(text: str) -> str:
    """`text` with `_` for all characters that MLflow does not allow in a metric's name."""
    return _NOT_A_NAME.sub("_", text)


def carried_figures(earlier: Mapping[str, Path]) -> dict[str, Figures]:
    """Side → figures of its own evaluation that do not depend on a judge: KL, length, refusals,
    variety."""
    by_side: dict[str, Figures] = {}
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


def rate_metrics(rows: list[Row], side: str, others: Sequence[str]) -> Figures:
    """`win_rate/<judge>/<axis>_vs_<other>` with `_low`, `_high`, `_ties`, `_lc`."""
    figures: Figures = {}
    for judge in dict.fromkeys(row["judge"] for row in rows):
        for other in others:
            for axis in DOMAINS:
                row = find_rate(rows, side, other, judge, axis)
                if row is None:
                    continue
                name = f"win_rate/{judge}/{axis}_vs_{metric_name(other)}"
                figures[name] = row["win_rate"]
                figures[f"{name}_low"], figures[f"{name}_high"] = row["low"], row["high"]
                figures[f"{name}_ties"] = row["ties"]
                if row["lc_win_rate"] is not None:  # lengths cannot always identify it
                    figures[f"{name}_lc"] = row["lc_win_rate"]
    return figures


def category_metrics(rows: Sequence[Mapping[str, Any]]) -> Figures:
    """`category/<domain>/<category>` mean scores, and how many categories were forgotten."""
    figures = {
        f"category/{row['domain']}/{metric_name(row['category'])}": float(row["score"])
        for row in rows
    }
    flags = [row["forgotten"] for row in rows if "forgotten" in row]
    if flags:
        figures["forgotten_categories"] = float(sum(flags))
    return figures
