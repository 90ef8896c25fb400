"""Combines two rewards into one: linear, piecewise (Llama 2) or constrained (Safe-RLHF).

`helpfulness` and `safety` are standardised scores (mean 0, deviation 1 on the fixed reference
set), so that a weight of 1 means the same for both. All arrays are (n,).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np

from alignment.config.rewards import CombineConfig
from alignment.utils.statistics import sigmoid


def combine(
    helpfulness: np.ndarray,
    safety: np.ndarray,
    is_safety_prompt: np.ndarray,
    config: CombineConfig,
    *,
    probability: np.ndarray | None = None,
    multiplier: float | None = None,
) -> np.ndarray:
    """The reward that selection and PPO climb.

    * `linear`: w_h·H + w_s·S.
    * `piecewise` (Llama 2 §3.2.3): S where the prompt is tagged or P(safe) < threshold, else H. The
      paper writes WHITEN(LOGIT(R_c)) with R a sigmoid. LOGIT undoes the sigmoid, so this uses the
      scores as logits directly: nothing is clamped and nothing saturates.
    * `constrained`: (H + λ·S) / (1 + λ), the Lagrangian's reward, on one scale for any λ
      (Safe-RLHF, eq. 12).

    Args:
        probability: P(safe), `RewardModel.probability(raw)`, for `piecewise`; σ(safety) if None.
            NaN, where the model has none, routes by the prompt's tag alone.
        multiplier: the present λ for `constrained`; the configured start if None.
    """
    if config.method == "linear":
        return helpfulness * config.weights["helpfulness"] + safety * config.weights["safety"]
    if config.method == "piecewise":
        chance = sigmoid(safety) if probability is None else probability
        route = routes_to_safety(chance, is_safety_prompt, config.threshold)
        chosen = np.where(route, safety, helpfulness)
        return whiten(chosen) if config.whiten else chosen
    weight = config.multiplier if multiplier is None else multiplier
    return (helpfulness + weight * safety) / (1.0 + weight)


def routes_to_safety(
    probability: np.ndarray, is_safety_prompt: np.ndarray, threshold: float
) -> np.ndarray:
    """Booleans: where the safety score counts, as the prompt is tagged or P(safe) < threshold."""
    return is_safety_prompt | (probability < threshold)


def whiten(rewards: np.ndarray, epsilon: float = 1e-8) -> np.ndarray:
    """Shift and scale the whole array to mean 0 and deviation 1 (biased variance)."""
    mean = rewards.mean()
    variance = ((rewards - mean) ** 2).mean()
    scaled: np.ndarray = (rewards - mean) / (variance + epsilon) ** 0.5
    return scaled


@dataclass
class Multiplier:
    """Lagrange multiplier λ, stepped in log space so that it stays positive (Safe-RLHF, §3.4)."""

    log: float

    @classmethod
    def start(cls, config: CombineConfig) -> Multiplier:
        """λ as configured."""
        return cls(math.log(config.multiplier))

    @property
    def value(self) -> float:
        """λ."""
        return math.exp(self.log)

    def update(self, mean_safety: float, config: CombineConfig) -> float:
        """One ascent step on the safety floor: log λ += rate · λ · (floor − mean S).

        λ rises while the batch is less safe than the floor, and falls when it is safer.
        """
        self.log += config.multiplier_rate * self.value * (config.floor - mean_safety)
        # exp(-20) is practically 0; without this bound λ could not rise again in time.
        self.log = min(max(self.log, -20.0), math.log(config.multiplier_limit))
        return self.value


@dataclass(frozen=True)
class Threshold:
    """A threshold on P(safe), with precision and recall of "below" for unsafe answers."""

    threshold: float
    precision: float
    recall: float


def fit_threshold(
    probability: np.ndarray,
    unsafe: np.ndarray,
    *,
    precision: float | None = None,
    recall: float | None = None,
) -> Threshold:
    """The threshold with a given precision (and the most recall), or the other way round.

    Both are measured on held-out answers. Llama 2's 0.15 had precision 0.89 and recall 0.55.

    Args:
        probability: P(safe), (n,).
        unsafe: booleans (n,), at least one true.
        precision: lowest precision, in [0, 1].
        recall: lowest recall, in [0, 1].

    Raises:
        ValueError: not exactly one of precision and recall is given, no answer is unsafe, or no
            threshold has the precision.
    """
    if (precision is None) == (recall is None):
        raise ValueError("give either precision or recall")
    if not unsafe.any():
        raise ValueError("no unsafe answer to fit a threshold on")
    order = np.argsort(probability)
    values, hits = probability[order], np.cumsum(unsafe[order])
    # A cut is possible only between two different values.
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    precisions = hits[ends] / (ends + 1)
    recalls = hits[ends] / hits[-1]
    if precision is not None:
        possible = np.flatnonzero(precisions >= precision)
        if len(possible) == 0:
            raise ValueError(f"no threshold has precision {precision}; best {precisions.max():.3f}")
        best = possible[np.argmax(recalls[possible])]
    else:
        possible = np.flatnonzero(recalls >= cast(float, recall))
        best = possible[np.argmax(precisions[possible])]
    end = int(ends[best])
    above = float(values[end + 1]) if end + 1 < len(values) else 1.0
    # Strictly above the last value, even if that is 1, because it must lie below the threshold.
    cut = max((float(values[end]) + above) / 2, float(np.nextafter(values[end], np.inf)))
    return Threshold(cut, float(precisions[best]), float(recalls[best]))
