"""Accuracy against the comparisons learned from so far (Llama 2, Fig 6), and what more would bring.

Every version's reward model is measured on the same held-out comparisons, those of all batches.
Error rates of learning curves fall about as a power of the data, so

    1 − accuracy = e^a · n^b,  b < 0 while more data help,

is fitted by least squares on logarithms. It knows no floor, although people themselves disagree:
read its forecast as what to hope for, and not far beyond a doubling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignment.rewards.evaluate import by_strength
from alignment.rewards.heldout_scores import Measured
from alignment.utils.seeds import derive_seed
from alignment.utils.statistics import percentile_bounds

TIMES = (1.5, 2.0, 4.0)
"""Forecast for so many times the comparisons of today."""
POINTS = (0.01, 0.02, 0.05)
"""Gains in accuracy whose price is forecast."""
FAR = 1e3  # a price of more than so many times today's comparisons is no forecast


@dataclass(frozen=True)
class Law:
    """error = e^a · n^b."""

    a: float
    b: float

    def accuracy(self, pairs: np.ndarray | float) -> np.ndarray:
        """Accuracy after learning from `pairs` comparisons; of any shape."""
        return 1.0 - np.exp(self.a + self.b * np.log(np.asarray(pairs, dtype=np.float64)))

    def pairs_for(self, accuracy: float) -> float:
        """Comparisons at which the law reaches an accuracy; infinite if it never does."""
        if self.b >= 0 or accuracy >= 1:
            return float("inf")
        logarithm = (np.log1p(-accuracy) - self.a) / self.b
        return float(np.exp(logarithm)) if logarithm < 700 else float("inf")


def fit(pairs: np.ndarray, accuracy: np.ndarray) -> Law:
    """Least squares of log error on log n; arrays (k,), k ≥ 2 different numbers of pairs."""
    error = np.maximum(1.0 - accuracy, 1e-4)
    b, a = np.polyfit(np.log(pairs), np.log(error), 1)
    return Law(float(a), float(b))


def growth(
    models: Mapping[str, tuple[int, Measured]], *, seed: int, samples: int = 1000
) -> dict[str, Any]:
    """The curve, its fit and its forecast.

    Args:
        models: version → (comparisons it learned from, its scores); all on the same comparisons.

    Returns:
        `points`: version, pairs, and a row of Table 8 for each; with two or more sizes also `law`,
        `forecast` (accuracy at `TIMES` today's pairs) and `price` (more comparisons for `POINTS`
        more accuracy; null where the law promises none). Intervals are percentiles over resampled
        held-out comparisons, the same for all models.
    """
    points = [
        {"version": name, "pairs": pairs, **by_strength(rows, seed, samples, "growth", name)}
        for name, (pairs, rows) in models.items()
    ]
    found: dict[str, Any] = {"points": points}
    sizes = np.array([pairs for pairs, _ in models.values()], dtype=np.float64)
    if len(np.unique(sizes)) < 2 or not len(next(iter(models.values()))[1]):
        return found
    right = np.stack([rows.right for _, rows in models.values()])
    law = fit(sizes, right.mean(axis=1))
    generator = np.random.default_rng(derive_seed(seed, "growth"))
    laws = []
    for _ in range(samples):
        picks = generator.integers(0, right.shape[1], size=right.shape[1])
        laws.append(fit(sizes, right[:, picks].mean(axis=1)))
    today = float(sizes.max())
    found["law"] = {"a": law.a, "b": law.b}
    found["forecast"] = [
        {
            "times": times,
            "pairs": round(times * today),
            "accuracy": float(law.accuracy(times * today)),
            **_bounds([float(one.accuracy(times * today)) for one in laws]),
        }
        for times in TIMES
    ]
    found["price"] = [
        {
            "points": points_,
            "more_pairs": _price(law, today, points_),
            "helped": float(np.mean([one.b < 0 for one in laws])),
            **_bounds([_price(one, today, points_) for one in laws]),
        }
        for points_ in POINTS
    ]
    found["band"] = [
        {
            "pairs": float(n),
            "accuracy": float(law.accuracy(n)),
            **_bounds([float(one.accuracy(n)) for one in laws]),
        }
        for n in (
            *np.geomspace(sizes.min(), today, 10),
            *np.geomspace(today, max(TIMES) * today, 10)[1:],
        )
    ]
    return found


def _price(law: Law, today: float, points: float) -> float:
    """More comparisons for so much more accuracy than the law gives today."""
    wanted = law.pairs_for(float(law.accuracy(today)) + points)
    return wanted - today if wanted < FAR * today else float("inf")


def _bounds(values: list[float]) -> dict[str, float]:
    finite = np.minimum(np.array(values, dtype=np.float64), 1e300)
    low, high = percentile_bounds(finite)
    return {"low": low, "high": high if high < 1e299 else float("inf")}
