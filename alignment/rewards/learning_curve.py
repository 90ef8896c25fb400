"""Accuracy against the number of training comparisons (Llama 2, Fig 6), with a forecast.

Every version's reward model is measured on the same held-out comparisons, those of all batches.
Error rates fall roughly as a power of the amount of data, so

    1 − accuracy = e^a · n^b,  b < 0 while more data help,

is fitted by least squares on logarithms. The law has no floor, although people themselves disagree.
So its forecast is optimistic, and reliable only up to about twice the data.
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
"""Multiples of today's comparisons for which accuracy is forecast."""
POINTS = (0.01, 0.02, 0.05)
"""Gains in accuracy for which the comparisons needed are forecast."""
FAR = 1e3  # no forecast beyond this multiple of today's comparisons


@dataclass(frozen=True)
class Law:
    """error = e^a · n^b."""

    a: float
    b: float

    def accuracy(self, pairs: np.ndarray | float) -> np.ndarray:
        """Accuracy after learning from `pairs` comparisons, an array of any shape."""
        return 1.0 - np.exp(self.a + self.b * np.log(np.asarray(pairs, dtype=np.float64)))

    def pairs_for(self, accuracy: float) -> float:
        """Comparisons at which the law reaches an accuracy; infinite if it never does."""
        if self.b >= 0 or accuracy >= 1:
            return float("inf")
        logarithm = (np.log1p(-accuracy) - self.a) / self.b
        return float(np.exp(logarithm)) if logarithm < 700 else float("inf")


def fit(pairs: np.ndarray, accuracy: np.ndarray) -> Law:
    """Fit log error on log n by least squares; arrays (k,) with at least 2 different sizes."""
    error = np.maximum(1.0 - accuracy, 1e-4)
    b, a = np.polyfit(np.log(pairs), np.log(error), 1)
    return Law(float(a), float(b))


def growth(
    models: Mapping[str, tuple[int, Measured]], *, seed: int, samples: int = 1000
) -> dict[str, Any]:
    """The learning curve, its fit and its forecast.

    Args:
        models: version → (number of its training comparisons, its scores on the same comparisons).

    Returns:
        `points`: version, pairs and a row of Table 8 for each model. With two or more sizes also
        `law`, `forecast` (accuracy at `TIMES` today's pairs) and `price` (additional comparisons
        for `POINTS` more accuracy; null if the law reaches none). Intervals are percentiles over
        resampled openings of the held-out comparisons, the same for all models.
    """
    points = [
        {"version": name, "pairs": pairs, **by_strength(rows)}
        for name, (pairs, rows) in models.items()
    ]
    figures: dict[str, Any] = {"points": points}
    sizes = np.array([pairs for pairs, _ in models.values()], dtype=np.float64)
    if len(np.unique(sizes)) < 2 or not len(next(iter(models.values()))[1]):
        return figures
    right = np.stack([rows.right for _, rows in models.values()])
    law = fit(sizes, right.mean(axis=1))
    groups = np.unique(next(iter(models.values()))[1].opening, return_inverse=True)[1]
    counts = np.bincount(groups)
    sums = np.stack([np.bincount(groups, weights=values) for values in right])
    generator = np.random.default_rng(derive_seed(seed, "growth"))
    laws = []
    for _ in range(samples):
        picks = generator.integers(0, len(counts), size=len(counts))
        laws.append(fit(sizes, sums[:, picks].sum(axis=1) / counts[picks].sum()))
    today = float(sizes.max())
    figures["law"] = {"a": law.a, "b": law.b}
    figures["forecast"] = [
        {
            "times": times,
            "pairs": round(times * today),
            "accuracy": float(law.accuracy(times * today)),
            **_bounds([float(resampled.accuracy(times * today)) for resampled in laws]),
        }
        for times in TIMES
    ]
    figures["price"] = [
        {
            "points": points_,
            "more_pairs": _price(law, today, points_),
            "helped": float(np.mean([resampled.b < 0 for resampled in laws])),
            **_bounds([_price(resampled, today, points_) for resampled in laws]),
        }
        for points_ in POINTS
    ]
    figures["band"] = [
        {
            "pairs": float(n),
            "accuracy": float(law.accuracy(n)),
            **_bounds([float(resampled.accuracy(n)) for resampled in laws]),
        }
        for n in (
            *np.geomspace(sizes.min(), today, 10),
            *np.geomspace(today, max(TIMES) * today, 10)[1:],
        )
    ]
    return figures


def _price(law: Law, today: float, points: float) -> float:
    """Additional comparisons for `points` more accuracy than the law gives today."""
    pairs = law.pairs_for(float(law.accuracy(today)) + points)
    return pairs - today if pairs < FAR * today else float("inf")


def _bounds(values: list[float]) -> dict[str, float]:
    finite = np.minimum(np.array(values, dtype=np.float64), 1e300)
    low, high = percentile_bounds(finite)
    return {"low": low, "high": high if high < 1e299 else float("inf")}
