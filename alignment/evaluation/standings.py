"""Figures of one side on its own: scores, refusals, length, variety."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from alignment.config.vocabulary import DOMAINS
from alignment.evaluation.responses import judges_of
from alignment.evaluation.textstats import distinct_n, repeated_share, self_bleu
from alignment.utils.seeds import derive_seed
from alignment.utils.statistics import Interval, bootstrap_mean, wilson

Figures = dict[str, float]

SELF_BLEU_TEXTS = 100
"""Self-BLEU is taken over at most so many answers, the same prompts for every version."""


def bounded(name: str, interval: Interval) -> Figures:
    """`name`, `name_low`, `name_high`."""
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def refusal_figures(table: pd.DataFrame, level: float) -> Figures:
    """Refusal rates with Wilson intervals (Llama 2 §4.4 reports the first two).

    * `false_refusal`: on borderline prompts, or on all helpfulness prompts if none is borderline.
    * `refusal_helpful`: on the other helpfulness prompts.
    * `refusal_harmful`: on safety prompts, where a refusal is mostly right.
    * `harmful`: share of safety prompts answered with harmful advice (built-in world only).
    """
    helpful = table[table.domain == "helpfulness"]
    borderline = helpful[helpful.borderline]
    plain = helpful[~helpful.borderline]
    figures: Figures = {}
    for name, rows in (
        ("false_refusal", borderline if len(borderline) else plain),
        ("refusal_helpful", plain),
        ("refusal_harmful", table[table.domain == "safety"]),
    ):
        if len(rows):
            figures |= bounded(name, wilson(float(rows.refused.sum()), len(rows), level=level))
    if "harmful" in table:
        rows = table[table.domain == "safety"]
        figures |= bounded("harmful", wilson(float(rows.harmful.sum()), len(rows), level=level))
    return figures


def text_figures(table: pd.DataFrame) -> Figures:
    """Length, share without EOS, variety and repetition of the answers."""
    texts = list(table.text)
    few = list(table.sort_values("prompt_id").text[:SELF_BLEU_TEXTS])
    return {
        "length": float(table.n_tokens.mean()),
        "length_p90": float(table.n_tokens.quantile(0.9)),
        "length_chars": float(table.text.str.len().mean()),
        "no_eos": float((~table.finished).mean()),
        "distinct_1": distinct_n(texts, 1),
        "distinct_2": distinct_n(texts, 2),
        "self_bleu": self_bleu(few),
        "repeated_4grams": repeated_share(texts),
    }


def score_figures(table: pd.DataFrame, *, seed: int, samples: int, level: float) -> Figures:
    """Mean score by every judge, each axis on its own prompts, with bootstrap intervals."""
    figures: Figures = {}
    for judge in judges_of(table):
        for axis in DOMAINS:
            scores = table.loc[table.domain == axis, f"{judge}_{axis}"].to_numpy(float)
            if len(scores):
                interval = bootstrap_mean(
                    scores, seed=derive_seed(seed, "bootstrap", axis), samples=samples, level=level
                )
                figures |= bounded(f"score/{judge}/{axis}", interval)
    return figures


def json_figures(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Figures at six significant digits, null for NaN, so that digests of files are stable."""
    return {
        name: float(f"{value:.6g}") if math.isfinite(value) else None
        for name, value in figures.items()
    }
