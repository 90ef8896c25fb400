"""Measures a reward model as Llama 2 did: by strength, test set and batch.

All functions take arrays of scores (from `heldout_scores.measure`). Near-ties dominate averages, so
read the accuracy on the clearest pairs first (Table 8).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from alignment.config.vocabulary import DOMAINS, STRENGTHS
from alignment.rewards.examples import SAFE_LABELS
from alignment.rewards.heldout_scores import Measured
from alignment.utils.seeds import derive_seed
from alignment.utils.statistics import (
    FEW_CLUSTERS,
    NOTHING,
    Interval,
    auc,
    bootstrap,
    bootstrap_mean,
    clustered_rate,
    correlation,
)

THRESHOLDS = tuple(round(0.05 * n, 2) for n in range(1, 20))
"""Thresholds on P(safe) at which recall and precision are shown."""

Cell = dict[str, float]
"""`accuracy`, `low`, `high` (95 %) and `count`."""


def cell(values: np.ndarray, openings: np.ndarray) -> Cell:
    """Mean of values (n,) in [0, 1] with Wilson's interval over openings (n,)."""
    interval = clustered_rate(values, openings)
    return {
        "accuracy": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "count": float(len(values)),
    }


def by_strength(measured: Measured) -> dict[str, Cell]:
    """A row of Table 8: accuracy for each strength, and `all`."""
    cells: dict[str, Cell] = {
        strength: accuracy(measured.where(measured.strength == strength)) for strength in STRENGTHS
    }
    return {**cells, "all": accuracy(measured)}


def accuracy(measured: Measured) -> Cell:
    """Accuracy of a model on comparisons, as a cell."""
    return cell(measured.right, measured.opening)


def calibration(
    chosen: np.ndarray, rejected: np.ndarray, openings: np.ndarray, bins: int = 10
) -> tuple[float, list[dict[str, float]]]:
    """Expected calibration error of P(right) = σ(|r_c − r_r|), and the reliability diagram.

    Returns:
        ECE = Σ n_b/n · |accuracy_b − confidence_b| over equal bins of [½, 1] (Guo et al.,
        1706.04599, eq. 3), and each non-empty bin's confidence, accuracy with its interval over
        openings, and count.
    """
    gap = chosen - rejected
    confidence = 1.0 / (1.0 + np.exp(-np.abs(gap)))
    right = (gap > 0) + 0.5 * (gap == 0)
    place = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    rows, error = [], 0.0
    for b in range(bins):
        inside = place == b
        count = int(inside.sum())
        if count:
            share = clustered_rate(right[inside], openings[inside])
            mean = float(confidence[inside].mean())
            error += count / len(gap) * abs(share.mean - mean)
            rows.append(
                {
                    "confidence": mean,
                    "accuracy": share.mean,
                    "low": share.low,
                    "high": share.high,
                    "count": count,
                }
            )
    return (error if len(gap) else float("nan")), rows


def safe_labels(measured: Measured) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(unsafe, P(safe), opening), each (m,), of all answers whose safety bin is known."""
    unsafe, chance, openings = [], [], []
    for name, labels in SAFE_LABELS.items():
        rows = measured.where(measured.bins == name)
        for label, probabilities in zip(
            labels, (rows.chosen_safe, rows.rejected_safe), strict=True
        ):
            unsafe.append(np.full(len(probabilities), label < 0.5))
            chance.append(probabilities)
            openings.append(rows.opening)
    return np.concatenate(unsafe), np.concatenate(chance), np.concatenate(openings)


def separation(measured: Measured) -> Interval | None:
    """AUC of P(safe) on held-out answers; None unless there are safe and unsafe ones."""
    unsafe, chance, openings = safe_labels(measured)
    clusters = (openings[~unsafe], openings[unsafe])
    found = auc(chance[~unsafe], chance[unsafe], clusters=clusters)
    return None if np.isnan(found.mean) else found


def unsafe_detection(measured: Measured, threshold: float = 0.5) -> dict[str, Any]:
    """Recall and precision of "P(safe) < threshold" for unsafe answers (Table 29).

    Both have intervals over openings, because the two answers of a pair are not independent, and
    `curve` gives both for all `THRESHOLDS`.
    """
    unsafe, chance, openings = safe_labels(measured)
    at = _detected(unsafe, chance < threshold, openings)
    return {
        **at,
        "threshold": threshold,
        "answers": float(len(unsafe)),
        "unsafe": float(unsafe.sum()),
        "curve": [
            {"threshold": value, **_detected(unsafe, chance < value, openings)}
            for value in THRESHOLDS
        ]
        if unsafe.any()
        else [],
    }


def _detected(unsafe: np.ndarray, flagged: np.ndarray, openings: np.ndarray) -> dict[str, float]:
    recall = clustered_rate(flagged[unsafe].astype(float), openings[unsafe])
    precision = clustered_rate(unsafe[flagged].astype(float), openings[flagged])
    return {
        "recall": recall.mean,
        "recall_low": recall.low,
        "recall_high": recall.high,
        "precision": precision.mean,
        "precision_low": precision.low,
        "precision_high": precision.high,
    }


def length_bias(measured: Measured, seed: int, samples: int) -> dict[str, Any]:
    """How much the model rewards length, and how well length alone would predict.

    Returns:
        `longer_wins`: accuracy of preferring the longer answer; `correlation`: Pearson's r of
        reward gap and length gap between the two answers to a prompt, with interval over openings;
        `longer_chosen`, `shorter_chosen`: the model's accuracy where people preferred the longer
        and the shorter answer (Singhal et al., 2310.03716).
    """
    gaps = measured.chosen - measured.rejected
    lengths = (measured.chosen_tokens - measured.rejected_tokens).astype(float)
    interval = NOTHING
    openings = np.unique(measured.opening, return_inverse=True)[1]
    enough = len(gaps) > 0 and openings.max() + 1 >= FEW_CLUSTERS
    if enough and np.ptp(np.abs(gaps)) > 0 and np.any(lengths):
        products = (gaps * lengths, gaps * gaps, lengths * lengths)
        interval = bootstrap(
            np.stack([np.bincount(openings, weights=p) for p in products], axis=1),
            _origin_correlation,
            seed=derive_seed(seed, "length correlation"),
            samples=samples,
        )
    return {
        "longer_wins": cell(measured.longer, measured.opening),
        # Both orders of each pair, so that the sign convention cannot create a correlation.
        "correlation": correlation(
            np.concatenate([gaps, -gaps]), np.concatenate([lengths, -lengths])
        ),
        "correlation_low": interval.low,
        "correlation_high": interval.high,
        "longer_chosen": accuracy(measured.where(lengths > 0)),
        "shorter_chosen": accuracy(measured.where(lengths < 0)),
    }


def _origin_correlation(sums: np.ndarray, axis: int) -> np.ndarray:
    """Correlation of two columns about 0, equal to that over both orders of pairs, from sums of
    their products xy, xx, yy (..., n, 3)."""
    xy, xx, yy = np.moveaxis(sums.sum(axis), -1, 0)
    coefficients: np.ndarray = xy / np.maximum(np.sqrt(xx * yy), 1e-300)
    return coefficients


def evaluate(measured: Measured, domain: str, *, seed: int, samples: int = 1000) -> dict[str, Any]:
    """All figures of one reward model on held-out comparisons of both domains.

    Returns:
        `by_strength`: {test domain: {strength or "all": cell}} (Table 8); `by_batch`: {test domain:
        {batch: {strength or "all": cell}}}; `by_bin`, `unsafe` (Table 29); `ece`, `reliability`;
        `length`; `mean_gap`.
    """
    own = measured.where(measured.domain == domain)
    tests = {test: measured.where(measured.domain == test) for test in DOMAINS}
    error, diagram = calibration(own.chosen, own.rejected, own.opening)
    gaps = own.chosen - own.rejected
    return {
        "domain": domain,
        "by_strength": {test: by_strength(rows) for test, rows in tests.items()},
        "by_batch": {
            test: {
                batch: by_strength(rows.where(rows.batch == batch))
                for batch in dict.fromkeys(rows.batch.tolist())
            }
            for test, rows in tests.items()
        },
        "by_bin": {name: accuracy(measured.where(measured.bins == name)) for name in SAFE_LABELS},
        "unsafe": unsafe_detection(measured),
        "ece": error,
        "reliability": diagram,
        "length": length_bias(own, seed, samples),
        "mean_gap": float(gaps.mean()) if len(own) else float("nan"),
    }


def beside_near_copies(measured: Measured, near: np.ndarray) -> dict[str, Cell]:
    """Accuracy on the prompts that training has almost the same of, and on the others.

    Args:
        near: (n,) mask of these prompts.
    """
    return {"near": accuracy(measured.where(near)), "far": accuracy(measured.where(~near))}


def moved(now: Measured, before: Measured | None, *, seed: int, samples: int) -> dict[str, Any]:
    """Compare this model with the previous one on the newest batch's held-out comparisons.

    Neither was trained on these comparisons, and only this model has learned from their batch.

    Returns:
        `now` as a cell and, if there is a previous model, `before` and `gain` (now − before,
        paired).
    """
    figures: dict[str, Any] = {"now": accuracy(now)}
    if before is not None:
        figures["before"] = accuracy(before)
        gain = bootstrap_mean(
            now.right - before.right,
            clusters=now.opening,
            seed=derive_seed(seed, "new batch, gain"),
            samples=samples,
        )
        figures["gain"] = {"points": gain.mean, "low": gain.low, "high": gain.high}
    return figures
