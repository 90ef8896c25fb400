"""The search for a version's sampling temperature: the one with the best best-of-K reward.

Llama 2 §3.2.3, Fig 8: the best temperature changes with every version and must be tuned again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignment.rewards.cut_answers import floored
from alignment.sampling.best_of import curves, expected_best


@dataclass(frozen=True)
class TemperatureResult:
    """Figures of one temperature of the search.

    Attributes:
        expected: expected best-of-K reward, mean over prompts; `error` its standard error.
        curve: `best_of.curves` rows for powers of two up to K.
    """

    temperature: float
    expected: float
    error: float
    mean: float
    finished: float
    distinct: float
    curve: list[dict[str, float]]


def with_floor(rewards: np.ndarray, may_be_chosen: np.ndarray) -> np.ndarray:
    """Rewards where an answer that selection would exclude gets the prompt's lowest reward.

    Args:
        rewards: [temperatures, prompts, K].
        may_be_chosen: booleans of the same shape.
    """
    return np.where(may_be_chosen, rewards, rewards.min(axis=(0, 2), keepdims=True))


def best_temperature(
    grid: Sequence[float],
    rewards: np.ndarray,
    finished: np.ndarray,
    distinct: Sequence[float],
    *,
    finished_only: bool,
) -> tuple[float, list[TemperatureResult]]:
    """The best temperature of the grid, and the figures of each; ties go to the lower one.

    Args:
        rewards: [temperatures, prompts, K], all from the same reward models.
        finished: booleans of the same shape: answers that ended with EOS.
        distinct: distinct-answer rate of each temperature.
        finished_only: selection leaves out the answers that did not end. Where it takes them, a
            search that does not would look for the temperature whose answers end soonest.
    """
    counted = (with_floor if finished_only else floored)(rewards, finished)
    k = rewards.shape[-1]
    counts = sorted({*(2**i for i in range(int(math.log2(k)) + 1)), k})
    results = []
    for index, temperature in enumerate(grid):
        best = expected_best(counted[index], k)
        error = best.std(ddof=1) / math.sqrt(len(best)) if len(best) > 1 else math.nan
        results.append(
            TemperatureResult(
                temperature,
                float(best.mean()),
                float(error),
                float(rewards[index].mean()),
                float(finished[index].mean()),
                float(distinct[index]),
                curves(counted[index], counts),
            )
        )
    best_one = max(results, key=lambda one: (one.expected, -one.temperature))
    return best_one.temperature, results
