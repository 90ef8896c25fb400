"""Fits a threshold on P(safe) to answers of known safety, and tells how good it is on others.

Of many thresholds the best one on some answers looks better there than it is (an optimism of up to
5 points of precision on 60 answers). So a threshold must have what is wished for with some
confidence, and its precision and recall are told by cross-fitting: every answer is judged by
thresholds that were fitted without its opening.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from alignment.utils.statistics import (
    Interval,
    clustered_rate,
    independent_trials,
    student,
    wilson,
)

CONFIDENCE = 0.9
"""One-sided, for one threshold. As the choice is among many, nine of ten keep what they promise."""
FOLDS = 10
REPEATS = 10
"""Divisions into folds that are averaged: a single one adds a tenth to the error."""

Kind = Literal["precision", "recall"]


@dataclass(frozen=True)
class Threshold:
    """A threshold on P(safe), with precision and recall of "below" for the unsafe answers that it
    was fitted to."""

    threshold: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Detection:
    """Precision and recall of "below" for unsafe answers, with 95 % intervals over openings."""

    precision: Interval
    recall: Interval


def fit_threshold(
    probability: np.ndarray, unsafe: np.ndarray, openings: np.ndarray, kind: Kind, wish: float
) -> Threshold:
    """The threshold that has the wished precision with `CONFIDENCE` and the most recall, or the
    other way round.

    The lower bound is Wilson's over openings (`statistics.clustered_rate`). Llama 2's 0.15 had
    precision 0.89 and recall 0.55.

    Args:
        probability: P(safe), (n,).
        unsafe: booleans (n,), at least one true.
        openings: (n,) numbers; answers to one opening are not independent.
        wish: in (0, 1).

    Raises:
        ValueError: no answer is unsafe, or no threshold is good enough.
    """
    if not unsafe.any():
        raise ValueError("no unsafe answer to fit a threshold on")
    found, reached = _fit(probability, unsafe, openings, kind, wish)
    if reached < wish:
        raise ValueError(
            f"no threshold has {kind} {wish:g} with {CONFIDENCE:.0%} confidence on {len(unsafe)} "
            f"held-out answers, {int(unsafe.sum())} of them unsafe; best {reached:.3f}"
        )
    return found


def cross_fitted(
    probability: np.ndarray,
    unsafe: np.ndarray,
    openings: np.ndarray,
    kind: Kind,
    wish: float,
    *,
    seed: int,
) -> Detection:
    """How good the threshold of `fit_threshold` is on answers that it was not fitted to.

    Folds of openings are left out in turn. The interval is Wilson's around that estimate; it ends
    above no earlier than the one on the answers that were fitted to, which can only flatter.

    Returns:
        NaN where no answer lies below a threshold.
    """
    groups = np.unique(openings, return_inverse=True)[1]
    generator = np.random.default_rng(seed)
    below = np.zeros(len(unsafe))
    for _ in range(REPEATS):
        fold = (generator.permutation(int(groups.max()) + 1) % FOLDS)[groups]
        for number in range(FOLDS):
            rest = fold != number
            if unsafe[rest].any():
                found, _ = _fit(probability[rest], unsafe[rest], groups[rest], kind, wish)
                below += ~rest & (probability < found.threshold)
    fitted = probability < _fit(probability, unsafe, groups, kind, wish)[0].threshold
    hits = float(below[unsafe].sum())
    return Detection(
        _around(hits / below.sum(), unsafe[fitted], groups[fitted])
        if below.any()
        else Interval(float("nan"), float("nan"), float("nan")),
        _around(hits / (REPEATS * unsafe.sum()), fitted[unsafe], groups[unsafe]),
    )


def _around(rate: float, flattering: np.ndarray, groups: np.ndarray) -> Interval:
    """The interval of a rate from as many independent trials as `flattering` (n,) has."""
    values = flattering.astype(float)
    trials = independent_trials(values, groups)
    found = wilson(rate * trials, trials)
    return found._replace(high=max(found.high, clustered_rate(values, groups).high))


def _fit(
    probability: np.ndarray, unsafe: np.ndarray, groups: np.ndarray, kind: Kind, wish: float
) -> tuple[Threshold, float]:
    """The best threshold, and the lower bound of what was wished for; if that is short of it, the
    threshold is the one with the highest."""
    order = np.argsort(probability, kind="stable")
    values, hit, group = probability[order], unsafe[order], groups[order]
    # A cut is possible only between two different values.
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    hits = np.cumsum(hit)[ends]
    precisions, recalls = hits / (ends + 1), hits / hits[-1]
    if kind == "precision":
        bound, other = _precision_bound(hit, group)[ends], recalls
    else:
        bound, other = _recall_bound(hit, group)[ends], precisions
    possible = np.flatnonzero(bound >= wish)
    best = possible[np.argmax(other[possible])] if len(possible) else int(np.argmax(bound))
    end = int(ends[best])
    above = float(values[end + 1]) if end + 1 < len(values) else 1.0
    # Strictly above the last value, even if that is 1, because it must lie below the threshold.
    cut = max((float(values[end]) + above) / 2, float(np.nextafter(values[end], np.inf)))
    return Threshold(cut, float(precisions[best]), float(recalls[best])), float(bound[best])


def _precision_bound(hit: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(n,) lower bounds of the share of hits among the first 1 … n."""
    hits, count = np.cumsum(hit), np.arange(1, len(hit) + 1)
    rate = hits / count
    seen, own = _before(groups, np.ones(len(hit))), _before(groups, hit)
    # Sums over openings of squares and products grow with each answer by these.
    squares = np.cumsum(hit * (2 * own + 1))
    products = np.cumsum(own + hit * (seen + 1))
    sizes = np.cumsum(2 * seen + 1)
    spread = squares - 2 * rate * products + rate**2 * sizes
    return _lower(rate, count, np.cumsum(seen == 0), spread)


def _recall_bound(hit: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(n,) lower bounds of the share of all hits that are among the first 1 … n."""
    number = np.unique(groups[hit], return_inverse=True)[1]
    size = np.bincount(number)
    rate = np.cumsum(hit) / len(number)
    own, products = np.zeros(len(hit)), np.zeros(len(hit))
    own[hit] = 2 * _before(number, np.ones(len(number))) + 1
    products[hit] = size[number]
    spread = np.cumsum(own) - 2 * rate * np.cumsum(products) + rate**2 * float((size**2).sum())
    count = np.full(len(hit), len(number))
    return _lower(rate, count, np.full(len(hit), len(size)), spread)


def _before(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(n,) sums of the earlier values of the same group."""
    order = np.argsort(groups, kind="stable")
    ordered = values[order].astype(float)
    sums = np.cumsum(ordered) - ordered
    first = np.append(True, np.diff(groups[order]) != 0)
    starts = np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))
    found = np.empty(len(values))
    found[order] = sums - sums[starts]
    return found


def _lower(
    rate: np.ndarray, count: np.ndarray, clusters: np.ndarray, spread: np.ndarray
) -> np.ndarray:
    """The lower ends of `statistics.clustered_rate` for many rates at once.

    Args:
        rate, count, clusters: (n,) rates, of how many values in how many clusters.
        spread: (n,) sums over clusters of the square of (hits − rate · size).
    """
    level = 2 * CONFIDENCE - 1
    z = NormalDist().inv_cdf(CONFIDENCE)
    trials = count.astype(float)
    varies = (rate > 0) & (rate < 1) & (clusters > 1)
    repeated = varies & (clusters < count)
    found = clusters[repeated]
    variance = found / (found - 1) * spread[repeated] / count[repeated] ** 2
    alone = (rate * (1 - rate))[repeated]
    trials[repeated] = np.minimum(
        trials[repeated], alone / np.maximum(variance, alone / trials[repeated])
    )
    known = {int(n): (z / student(level, int(n) - 1)) ** 2 for n in np.unique(found)}
    trials[repeated] *= np.array([known[int(n)] for n in found])
    trials[~varies] = clusters[~varies]
    middle = rate + z * z / (2 * trials)
    half = z * np.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials))
    bounds: np.ndarray = np.clip((middle - half) / (1 + z * z / trials), 0.0, rate)
    return bounds
