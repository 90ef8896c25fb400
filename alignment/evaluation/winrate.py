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
    clustered_rate,
    student,
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
    """Rates of A over B on n paired prompts; where several prompts ask about one subject, subjects
    are what is independent."""

    rate: Interval
    """Share of wins plus half the share of ties, with Wilson's interval."""
    ties: float
    """Share of tied prompts."""
    controlled: Interval
    """The rate predicted by a logistic model for answers of equal length; NaN where the lengths
    cannot identify it."""
    support: float
    """Share of prompts on which the side that mostly writes more does not."""
    length_gap: float
    """Mean length of A's answers minus B's, in the unit the lengths were given in."""
    length_ratio: float
    """Mean length of A's answers over B's; NaN where B's are all empty."""
    n: int

    def row(self) -> dict[str, float | int | None]:
        """As flat JSON figures, null for NaN."""
        figures: dict[str, float | int | None] = {"n": self.n, "ties": self.ties}
        for prefix, interval in (("", self.rate), ("lc_", self.controlled)):
            for name, value in interval._asdict().items():
                title = f"{prefix}{'win_rate' if name == 'mean' else name}"
                figures[title] = None if np.isnan(value) else float(value)
        ratio = None if np.isnan(self.length_ratio) else self.length_ratio
        figures |= {"length_gap": self.length_gap, "length_ratio": ratio}
        return figures | {"lc_support": self.support}


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
    level: float = LEVEL,
    subjects: NDArray[np.int_] | None = None,
) -> WinRate:
    """Win rate of A over B.

    Args:
        won: (n,) `outcomes` on n ≥ 1 prompts.
        lengths_a, lengths_b: (n,) lengths of the answers.
        level: coverage of the intervals.
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
        rate=_rate(results, level, subjects),
        ties=float((results == 0.5).mean()),
        controlled=length_controlled(results, gaps, unit, level=level, subjects=subjects),
        support=support(gaps),
        length_gap=float(gaps.mean()),
        length_ratio=float(left.mean() / right.mean()) if right.any() else float("nan"),
        n=int(results.size),
    )


def _rate(won: Floats, level: float, subjects: NDArray[np.int_] | None) -> Interval:
    """Wilson's interval. Nothing but ties do not vary: as many prompts as it leaves open for others
    may all go one way."""
    if (won != 0.5).any():
        return clustered_rate(won, subjects, level=level)
    size = won.size if subjects is None else np.unique(subjects).size
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

    The interval is that of θ by `_variance`. Percentiles of refits to resampled prompts held the
    truth in 89 % of cases for 40 prompts (docs/statistics.md).

    Args:
        won: (n,) verdicts 1, ½, 0.
        gaps: (n,) length of A's answer minus that of B's.
        unit: deviation of the lengths of all answers of both sides.
        penalty: weight of ½·(θ² + φ²), which keeps a clean sweep finite (n wins of n = 200 give
            about 0.997).
        subjects: (n,) numbers; prompts of one subject are not independent. The bounds of a single
            one are NaN.
    """
    results, distances = np.asarray(won, float), np.asarray(gaps, float)
    if unit == 0.0 or not distances.any():  # all answers have one length: there is no effect
        return _rate(results, level, subjects)
    if support(distances) < LEAST_SUPPORT:
        return NOTHING
    features = np.stack([np.ones_like(distances), np.tanh(distances / unit)], axis=1)
    numbers = np.arange(results.size) if subjects is None else subjects
    groups = np.unique(numbers, return_inverse=True)[1]
    fit = _fit(results, features, penalty)
    theta, count = float(fit[0]), int(groups.max()) + 1
    if count < 2:
        return Interval(float(_sigmoid(fit[0])), float("nan"), float("nan"))
    half = student(level, count - 1) * _variance(results, features, fit, penalty, groups) ** 0.5
    middle, low, high = _sigmoid(np.array([theta, theta - half, theta + half])).tolist()
    return Interval(middle, low, high)


def _fit(won: Floats, features: Floats, penalty: float, steps: int = 30) -> Floats:
    """(2,) θ and φ of the logistic fit to verdicts (n,) by features (n, 2), by Newton's method.

    The objective is strictly convex. Steps are limited to length 4, because far from the solution
    the local curvature is misleading.
    """
    fit = np.zeros(2)
    for _ in range(steps):
        p = _sigmoid(features @ fit)
        slope = features.T @ (p - won) + penalty * fit
        step = np.linalg.solve(_curvature(p, features, penalty), slope)
        fit = fit - step * min(1.0, 4.0 / max(float(np.hypot(*step)), 1e-12))
        if np.hypot(*step) < 1e-7:
            break
    return fit


def _curvature(p: Floats, features: Floats, penalty: float) -> Floats:
    """(2, 2) second derivatives of the objective where the model predicts p (n,)."""
    found: Floats = (features.T * (p * (1 - p))) @ features + penalty * np.eye(2)
    return found


def _variance(
    won: Floats, features: Floats, fit: Floats, penalty: float, groups: NDArray[np.int_]
) -> float:
    """Variance of θ: from how residuals, divided by 1 − their leverage, scatter over two or more
    groups (Liang and Zeger 1986; MacKinnon and White 1985, HC3), but no less than by the model
    itself, scaled down where ties vary less than wins and losses. In a clean sweep residuals say
    nothing, and the model's is taken."""
    p = _sigmoid(features @ fit)
    bread = np.linalg.inv(_curvature(p, features, penalty))
    model, weight = float(bread[0, 0]), p * (1 - p)
    if won.min() == won.max():
        return model
    leverage = weight * np.einsum("ni,ij,nj->n", features, bread, features)
    errors = features * ((won - p) / (1 - leverage))[:, None]
    count = int(groups.max()) + 1
    sums = np.stack([np.bincount(groups, weights=column) for column in errors.T], axis=1)
    robust = float((bread @ sums.T @ sums @ bread)[0, 0]) * count / (count - 1)
    spread = float(((won - p) ** 2 / weight).sum()) / max(1, len(won) - 2)
    return max(robust, model * min(1.0, spread))


def _sigmoid(x: Floats) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * x))
