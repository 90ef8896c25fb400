"""Intervals and small estimators that all measurements share.

They use numpy only. `scipy.stats.bootstrap` draws the same resamples and gives the same bounds to
the last digit (a test compares them), but is slower and takes a second to import. scipy's Wilson
interval does not support half wins.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A figure with its lower and upper bound; all three are NaN if there are no data."""

    mean: float
    low: float
    high: float


NOTHING = Interval(math.nan, math.nan, math.nan)
FEW_CLUSTERS = 8
"""With fewer clusters percentiles are not wide enough: no resample goes beyond the outermost."""


def bootstrap_mean(
    values: np.ndarray,
    *,
    seed: int,
    samples: int = 1000,
    level: float = 0.95,
    clusters: np.ndarray | None = None,
) -> Interval:
    """Mean of `values` (n,) with its percentile bootstrap interval.

    Args:
        clusters: (n,) numbers; values of one cluster are not independent, so whole clusters are
            resampled. None: each value is one.

    The tails are widened for the small number of clusters (Hesterberg 2015, section 4.3, "expanded
    percentile"). With fewer than `FEW_CLUSTERS` the interval is Student's, and the bounds of a
    single one are NaN.

    The same seed gives the same bounds. If all values are equal, the interval has width 0, because
    there is no spread to resample; use `clustered_rate` for shares.
    """
    if len(values) == 0:
        return NOTHING
    numbers = np.arange(len(values)) if clusters is None else clusters
    groups = np.unique(numbers, return_inverse=True)[1]
    counts = np.bincount(groups)
    mean = float(np.mean(values))
    if len(counts) == 1:
        return Interval(mean, math.nan, math.nan)
    if len(counts) < FEW_CLUSTERS:
        half = student(level, len(counts) - 1) * _variance(values - mean, groups) ** 0.5
        return Interval(mean, mean - half, mean + half)
    wider = expanded(level, len(counts))
    if len(counts) == len(values):
        return bootstrap(values, np.mean, seed=seed, samples=samples, level=wider)
    rows = np.stack([np.bincount(groups, weights=values), counts], axis=1)
    return bootstrap(rows, _ratio, seed=seed, samples=samples, level=wider)


def _variance(deviations: np.ndarray, groups: np.ndarray) -> float:
    """Variance of the mean of values in two or more clusters, from their deviations (n,) from it
    and the clusters' numbers 0, 1, …"""
    sums = np.bincount(groups, weights=deviations) / len(deviations)
    return len(sums) / (len(sums) - 1) * float((sums**2).sum())


def _ratio(rows: np.ndarray, axis: int) -> np.ndarray:
    """Mean over all values from (…, 2) sums and counts of clusters."""
    total = rows.sum(axis)
    share: np.ndarray = total[..., 0] / total[..., 1]
    return share


def expanded(level: float, count: int) -> float:
    """The level at which normal quantiles are as wide as Student's over `count` clusters are."""
    free = count - 1
    return 2.0 * NormalDist().cdf(student(level, free) * (count / free) ** 0.5) - 1.0


def student(level: float, free: int) -> float:
    """Student's quantile for a central `level` with `free` degrees of freedom."""
    if free == 1:
        return math.tan(math.pi * level / 2.0)
    if free == 2:
        return level * math.sqrt(2.0 / (1.0 - level * level))
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    # Cornish and Fisher's expansion: at 95 % right to 1 % from 3 degrees of freedom on.
    return (
        z
        + (z**3 + z) / (4 * free)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
    )


def bootstrap(
    values: np.ndarray,
    statistic: Callable[..., np.ndarray],
    *,
    seed: int,
    samples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """`statistic` of `values` (n, ...) with its percentile bootstrap interval over the first axis.

    Args:
        values: (n, ...); NaN bounds if n is 0.
        statistic: called with `axis=1` on (blocks, n, ...) and with `axis=0` on the values.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0:
        return NOTHING
    generator = np.random.default_rng(seed)
    # Blocks bound the memory to about 4 million drawn values at a time.
    block = max(1, min(samples, 4_000_000 // max(values.size, 1)))
    drawn = []
    for start in range(0, samples, block):
        count = min(block, samples - start)
        picks = generator.integers(0, len(values), size=(count, len(values)))
        drawn.append(np.asarray(statistic(values[picks], axis=1)))
    low, high = percentile_bounds(np.concatenate(drawn), level)
    return Interval(float(statistic(values, axis=0)), low, high)


def percentile_bounds(draws: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Bounds of the central `level` of `draws` (n,)."""
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(draws, [tail, 1.0 - tail])
    return float(low), float(high)


def wilson(successes: float, trials: float, *, level: float = 0.95) -> Interval:
    """A rate with Wilson's score interval (1927), valid for small counts and rates near 0 and 1."""
    if trials <= 0:
        return NOTHING
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    rate = successes / trials
    scale = 1.0 + z * z / trials
    centre = (rate + z * z / (2 * trials)) / scale
    half = z * np.sqrt(rate * (1 - rate) / trials + z * z / (4 * trials * trials)) / scale
    # By rounding, the bounds of a rate of 0 or 1 would not hold it.
    low, high = min(rate, float(centre - half)), max(rate, float(centre + half))
    return Interval(rate, max(0.0, low), min(1.0, high))


def difference(after: Interval, before: Interval, correlation: float = 0.0) -> Interval:
    """`after` − `before`, two rates with Wilson's intervals, with Newcombe's interval (1998, method
    10 for independent rates, and method 10 of his paper on paired data without its correction for
    continuity).

    Args:
        correlation: of the two estimates; 0 where they are independent.
    """
    gap = after.mean - before.mean

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * correlation * one * other + other**2))

    below = reach(after.mean - after.low, before.high - before.mean)
    above = reach(after.high - after.mean, before.mean - before.low)
    return Interval(gap, gap - below, gap + above)


def paired_difference(
    after: np.ndarray,
    before: np.ndarray,
    clusters: np.ndarray | None = None,
    *,
    level: float = 0.95,
) -> Interval:
    """Mean of `after` − `before`, each in [0, 1] and (n,), on the same n ≥ 1 items: `difference`
    with the correlation of what both sum to in each cluster, 0 where one of them does not vary.

    Args:
        clusters: (n,) numbers; values of one cluster are not independent. None: each value is one.
    """
    groups = (
        np.arange(len(after)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    )
    one, other = (np.bincount(groups, weights=won - won.mean()) for won in (after, before))
    norm = float(np.linalg.norm(one) * np.linalg.norm(other))
    now, then = (clustered_rate(won, clusters, level=level) for won in (after, before))
    return difference(now, then, float(one @ other) / norm if norm else 0.0)


def clustered_rate(
    won: np.ndarray, clusters: np.ndarray | None = None, *, level: float = 0.95
) -> Interval:
    """Mean of `won` (n,), each in [0, 1], with Wilson's interval for an effective number of trials.

    That number is the one at which wins and losses would vary as the clusters do, less what few
    clusters leave unknown of it (Korn and Graubard 1998), but no more than if the values were
    independent: n, and more where ties (½) vary less. Where all are equal it is the number of
    clusters.

    Args:
        clusters: (n,) numbers; values of one cluster are not independent. None: each value is one.
    """
    if len(won) == 0:
        return NOTHING
    trials = independent_trials(won, clusters, level=level)
    return wilson(float(won.mean()) * trials, trials, level=level)


def independent_trials(
    won: np.ndarray, clusters: np.ndarray | None = None, *, level: float = 0.95
) -> float:
    """The effective number of trials behind `clustered_rate`; arguments as there, n ≥ 1."""
    rate = float(won.mean())
    numbers = np.arange(len(won)) if clusters is None else clusters
    groups = np.unique(numbers, return_inverse=True)[1]
    count = int(groups.max()) + 1
    trials, spread = float(count), float(won.var())
    if count > 1 and spread:
        trials = most = len(won) * rate * (1 - rate) / spread
        if count < len(won):
            variance = _variance(won - rate, groups)
            trials = min(most, rate * (1 - rate) / variance) if variance else most
            known = NormalDist().inv_cdf(0.5 + level / 2.0) / student(level, count - 1)
            trials *= known**2
    return trials


def auc(
    positive: np.ndarray,
    negative: np.ndarray,
    *,
    clusters: tuple[np.ndarray, np.ndarray],
    level: float = 0.95,
) -> Interval:
    """P(a positive scores above a negative), ties half, with an interval.

    It is DeLong's (1988) for clusters (Obuchowski 1997), or Newcombe's score interval (2006, method
    5) over clusters where that is wider: by DeLong's two answers in order would prove that all are.

    Args:
        positive, negative: scores, (m,) and (n,); NaN if either is empty.
        clusters: (m,) and (n,) numbers; scores of one cluster are not independent. With a single
            cluster the interval is [0, 1]: there is no spread to estimate.
    """
    if len(positive) == 0 or len(negative) == 0:
        return NOTHING
    below = _share_below(np.sort(negative), positive)
    above = 1.0 - _share_below(np.sort(positive), negative)
    mean = float(below.mean())
    groups = np.unique(np.concatenate(clusters), return_inverse=True)[1]
    count = int(groups.max()) + 1
    if count < 2:
        return Interval(mean, 0.0, 1.0)
    influence = np.concatenate([(below - mean) / len(positive), (above - mean) / len(negative)])
    summed = np.bincount(groups, weights=influence)
    z = NormalDist().inv_cdf(0.5 + level / 2.0)
    half = z * (count / (count - 1) * float((summed**2).sum())) ** 0.5
    sizes = [len(np.unique(numbers)) for numbers in clusters]
    low, high = (_score_end(mean, end, sizes[0], sizes[1], z) for end in (0.0, 1.0))
    return Interval(mean, max(0.0, min(low, mean - half)), min(1.0, max(high, mean + half)))


def _score_end(mean: float, end: float, m: int, n: int, z: float) -> float:
    """The area towards `end` (0 or 1) that lies z of its own deviations from `mean`; the variance
    is Hanley and McNeil's (1982) for m and n independent scores."""

    def inside(area: float) -> bool:
        spread = (1 - area) / (2 - area) + area / (1 + area)
        variance = area * (1 - area) * (1 + ((m + n) / 2 - 1) * spread) / (m * n)
        return abs(area - mean) <= z * math.sqrt(variance)

    near, far = mean, end
    for _ in range(50):  # halvings: more than a float has digits
        middle = (near + far) / 2
        near, far = (middle, far) if inside(middle) else (near, middle)
    return near


def _share_below(ordered: np.ndarray, values: np.ndarray) -> np.ndarray:
    """For each of `values` the share of `ordered` below it, ties half."""
    under = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return under / (2.0 * len(ordered))


def correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Pearson's r of two arrays (n,); NaN where one of them does not vary or n < 2."""
    if len(left) < 2 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return math.nan
    return float(np.corrcoef(left, right)[0, 1])


def sigmoid(values: np.ndarray) -> np.ndarray:
    """σ of an array of any shape, without overflow."""
    result: np.ndarray = np.exp(-np.logaddexp(0.0, -values))
    return result
