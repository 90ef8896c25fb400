"""Win rate of A over B on the same prompts, raw and with the effect of length removed.

The higher score wins a prompt. Gaps of at most `TIE_MARGIN` are ties and count ½. (Llama 2, Fig 11,
has no ties because reward scores hardly ever tie; exact gold scores do.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignment.utils.statistics import (
    NOTHING,
    Interval,
    bootstrap_mean,
    expanded,
    percentile_bounds,
    wilson,
)

Floats = NDArray[np.float64]

LEVEL = 0.95
"""Coverage of every interval of an evaluation."""
LEAST_PROMPTS = 10
"""On fewer prompts an interval says nothing: that of one prompt has no width."""
LEAST_SUPPORT = 0.1
"""Share of prompts with a length gap of 0 or of the rarer sign, below which the effect of length
cannot be told from the effect of the side: only the penalty would decide."""
TIE_MARGIN = 1e-6
"""Two answers whose scores differ by at most this much are tied."""


@dataclass(frozen=True)
class WinRate:
    """Rates of A over B on n paired prompts; intervals come from resampling the prompts, or whole
    subjects where several prompts ask about one."""

    rate: Interval
    """Share of wins plus half the share of ties."""
    ties: float
    """Share of tied prompts."""
    controlled: Interval
    """The rate predicted by a logistic model for answers of equal length; NaN where the lengths
    cannot identify it."""
    support: float
    """Share of prompts on which the side that mostly writes more does not."""
    length_gap: float
    """Mean length of A's answers minus B's, in the unit the lengths were given in."""
    n: int

    def row(self) -> dict[str, float | int | None]:
        """As flat JSON figures, null for NaN."""
        figures: dict[str, float | int | None] = {"n": self.n, "ties": self.ties}
        for prefix, interval in (("", self.rate), ("lc_", self.controlled)):
            for name, value in interval._asdict().items():
                title = f"{prefix}{'win_rate' if name == 'mean' else name}"
                figures[title] = None if np.isnan(value) else float(value)
        figures["length_gap"], figures["lc_support"] = self.length_gap, self.support
        return figures


def outcomes(a: ArrayLike, b: ArrayLike, tie_margin: float = TIE_MARGIN) -> Floats:
    """1 where `a` wins, 0 where `b` wins, ½ for a tie.

    Args:
        a, b: (n,) scores of the two answers to each prompt.

    Raises:
        ValueError: shapes differ or a score is NaN.
    """
    left, right = np.asarray(a, float), np.asarray(b, float)
    if left.shape != right.shape or left.ndim != 1:
        raise ValueError(f"scores of shapes {left.shape} and {right.shape} are no pairs")
    if np.isnan(left).any() or np.isnan(right).any():
        raise ValueError("a score is NaN")
    gap = left - right
    return np.where(np.abs(gap) <= tie_margin, 0.5, (gap > 0).astype(float))


def win_rate(
    won: ArrayLike,
    lengths_a: ArrayLike,
    lengths_b: ArrayLike,
    *,
    seed: int,
    samples: int = 1000,
    level: float = LEVEL,
    subjects: NDArray[np.int_] | None = None,
) -> WinRate:
    """Win rate of A over B.

    Args:
        won: (n,) `outcomes` on n ≥ 1 prompts.
        lengths_a, lengths_b: (n,) lengths of the answers.
        seed, samples, level: seed, resamples and confidence level of the bootstrap.
        subjects: (n,) numbers; prompts of one subject are not independent.

    Raises:
        ValueError: no prompts.
    """
    results = np.asarray(won, float)
    if results.size == 0:
        raise ValueError("no prompts to compare on")
    left, right = np.asarray(lengths_a, float), np.asarray(lengths_b, float)
    gaps, unit = left - right, float(np.concatenate([left, right]).std())
    return WinRate(
        rate=_rate(results, seed, samples, level, subjects),
        ties=float((results == 0.5).mean()),
        controlled=length_controlled(
            results, gaps, unit, seed=seed, samples=samples, level=level, subjects=subjects
        ),
        support=support(gaps),
        length_gap=float(gaps.mean()),
        n=int(results.size),
    )


def _rate(
    won: Floats, seed: int, samples: int, level: float, subjects: NDArray[np.int_] | None
) -> Interval:
    """Bootstrap interval; Wilson's for a clean sweep or nothing but ties, which have no spread to
    resample: as many prompts as it leaves open for others may all go one way."""
    if won.min() != won.max():
        return bootstrap_mean(won, seed=seed, samples=samples, level=level, clusters=subjects)
    size = won.size if subjects is None else np.unique(subjects).size
    if won[0] != 0.5:
        return wilson(float(won[0]) * size, size, level=level)
    others = wilson(0.0, size, level=level).high
    return Interval(0.5, 0.5 - others / 2, 0.5 + others / 2)


def support(gaps: ArrayLike) -> float:
    """Share of `gaps` (n,) that are 0 or of the rarer sign."""
    distances = np.asarray(gaps, float)
    return float(min((distances <= 0).mean(), (distances >= 0).mean()))


def length_controlled(
    won: ArrayLike,
    gaps: ArrayLike,
    unit: float,
    *,
    seed: int,
    samples: int = 1000,
    level: float = LEVEL,
    penalty: float = 0.1,
    subjects: NDArray[np.int_] | None = None,
) -> Interval:
    """Win rate at equal length (Dubois et al. 2024, arXiv 2404.04475, without their term for the
    difficulty of an instruction, which needs many models).

    Fits P(A wins) = sigmoid(θ + φ·tanh(gap / unit)) to verdicts (ties are half a win) and returns
    sigmoid(θ), the prediction at gap 0. The gap is scaled, not centred: a gap of zero must stay
    zero, or the model that writes more would keep a part of its advantage. The unit is the spread
    of lengths: by that of gaps a constant gap would seem as large as one likes. If one side nearly
    always writes more (`LEAST_SUPPORT`), nothing identifies θ, and the result is NaN.

    Every resample needs a fit of its own, so a fifth of `samples` are drawn (at least 100), each
    fitted from the solution for all prompts.

    Args:
        won: (n,) verdicts 1, ½, 0.
        gaps: (n,) length of A's answer minus that of B's.
        unit: deviation of the lengths of all answers of both sides.
        penalty: weight of ½·(θ² + φ²), which keeps a clean sweep finite (n wins of n = 200 give
            about 0.997).
        subjects: (n,) numbers; whole subjects are resampled.
    """
    results, distances = np.asarray(won, float), np.asarray(gaps, float)
    if unit == 0.0 or not distances.any():  # all answers have one length: there is no effect
        return _rate(results, seed, samples, level, subjects)
    if support(distances) < LEAST_SUPPORT:
        return NOTHING
    features = np.tanh(distances / unit)
    fit = _fit(results[None], features[None], penalty)
    generator = np.random.default_rng(seed)
    count = max(100, samples // 5)
    if subjects is None:
        draws = generator.integers(0, results.size, size=(count, results.size))
        refits = _fit(results[draws], features[draws], penalty, start=fit[:, 0])
    else:
        groups = np.unique(subjects, return_inverse=True)[1]
        size = int(groups.max()) + 1
        drawn = generator.multinomial(size, np.full(size, 1 / size), size=count)
        times = drawn[:, groups].astype(float)
        refits = _fit(results[None], features[None], penalty, start=fit[:, 0], times=times)
        level = expanded(level, size) if size > 1 else level
    rates = _sigmoid(refits[0])
    return Interval(float(_sigmoid(fit[0])[0]), *percentile_bounds(rates, level))


def _fit(
    won: Floats,
    feature: Floats,
    penalty: float,
    start: Floats | None = None,
    steps: int = 30,
    times: Floats | None = None,
) -> Floats:
    """(2, m) θ and φ of logistic fits, one per row of the (m, n) arrays, by Newton's method.

    `times` (m, n) says how often each verdict counts.

    The objective is strictly convex. Steps are limited to length 4, because far from the solution
    the local curvature is misleading.
    """
    begin = np.zeros(2) if start is None else start
    rows = len(won) if times is None else len(times)
    theta, phi = np.full(rows, begin[0]), np.full(rows, begin[1])
    for _ in range(steps):
        p = _sigmoid(theta[:, None] + phi[:, None] * feature)
        error, weight = p - won, p * (1 - p)
        if times is not None:
            error, weight = times * error, times * weight
        g0 = error.sum(1) + penalty * theta
        g1 = np.einsum("mn,mn->m", error, np.broadcast_to(feature, error.shape)) + penalty * phi
        weighted = weight * feature
        h00 = weight.sum(1) + penalty
        h01 = weighted.sum(1)
        h11 = np.einsum("mn,mn->m", weighted, np.broadcast_to(feature, error.shape)) + penalty
        determinant = h00 * h11 - h01**2
        d0 = (h11 * g0 - h01 * g1) / determinant
        d1 = (h00 * g1 - h01 * g0) / determinant
        cut = np.minimum(1.0, 4.0 / np.maximum(np.hypot(d0, d1), 1e-12))
        theta, phi = theta - cut * d0, phi - cut * d1
        if np.hypot(d0, d1).max() < 1e-7:
            break
    return np.stack([theta, phi])


def _sigmoid(x: Floats) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * x))
