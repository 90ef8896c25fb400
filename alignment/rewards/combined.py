"""Combines two rewards into one: linear, piecewise (Llama 2) or constrained (Safe-RLHF).

`helpfulness` and `safety` are standardised scores (mean 0, deviation 1 on the fixed reference
set), so that a weight of 1 means the same for both. All arrays are (n,).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

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
