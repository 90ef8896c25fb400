"""Combines two rewards into one: linear, piecewise (Llama 2) or constrained (Safe-RLHF).

Every function takes numpy arrays or torch tensors of one shape and returns the same kind.
`helpfulness` and `safety` are standardised scores (mean 0, deviation 1 on the fixed reference
set), so that a weight of 1 means the same for both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from alignment.config.rewards import CombineConfig
from alignment.utils.statistics import sigmoid

Array = TypeVar("Array", np.ndarray, Tensor)


def linear(helpfulness: Array, safety: Array, config: CombineConfig) -> Array:
    """w_h·H + w_s·S."""
    return helpfulness * config.weights["helpfulness"] + safety * config.weights["safety"]


def routes_to_safety(probability: Array, is_safety_prompt: Array, threshold: float) -> Array:
    """Booleans: where the safety score counts, as the prompt is tagged or P(safe) < threshold."""
    return is_safety_prompt | (probability < threshold)


def piecewise(
    helpfulness: Array,
    safety: Array,
    is_safety_prompt: Array,
    config: CombineConfig,
    probability: Array | None = None,
) -> Array:
    """R_c = S where the prompt is tagged or P(safe) < threshold, else H (Llama 2 §3.2.3).

    The paper writes WHITEN(LOGIT(R_c)) with R a sigmoid. LOGIT undoes the sigmoid, so this uses
    the scores as logits directly: nothing is clamped and nothing saturates.

    Args:
        helpfulness, safety: standardised scores (n,).
        is_safety_prompt: booleans (n,).
        config: threshold and whitening.
        probability: P(safe) (n,), `RewardModel.probability(raw)`; σ(safety) if None.
    """
    chance = _sigmoid(safety) if probability is None else probability
    route = routes_to_safety(chance, is_safety_prompt, config.threshold)
    chosen = _where(route, safety, helpfulness)
    return whiten(chosen) if config.whiten else chosen


def whiten(rewards: Array, shift_mean: bool = True, epsilon: float = 1e-8) -> Array:
    """Scale the whole array to deviation 1 (biased variance) and, with `shift_mean`, mean 0."""
    mean = rewards.mean()
    variance = ((rewards - mean) ** 2).mean()
    scaled: Array = (rewards - mean) / (variance + epsilon) ** 0.5
    if not shift_mean:
        scaled = scaled + mean
    return scaled


def constrained(helpfulness: Array, safety: Array, multiplier: float) -> Array:
    """(H + λ·S) / (1 + λ): the Lagrangian's reward, on one scale for any λ (Safe-RLHF, eq. 12)."""
    return (helpfulness + multiplier * safety) / (1.0 + multiplier)


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


def combine(
    helpfulness: Array,
    safety: Array,
    is_safety_prompt: Array,
    config: CombineConfig,
    *,
    probability: Array | None = None,
    multiplier: float | None = None,
) -> Array:
    """The reward that selection and PPO climb, (n,).

    Args:
        helpfulness, safety: standardised scores (n,).
        is_safety_prompt: booleans (n,).
        config: method, weights and thresholds.
        probability: P(safe) for `piecewise`; σ(safety) if None.
        multiplier: the present λ for `constrained`; the configured start if None.
    """
    if config.method == "linear":
        return linear(helpfulness, safety, config)
    if config.method == "piecewise":
        return piecewise(helpfulness, safety, is_safety_prompt, config, probability)
    return constrained(helpfulness, safety, config.multiplier if multiplier is None else multiplier)


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
    order = np.argsort(probability, kind="stable")
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


def _sigmoid(values: Array) -> Array:
    if isinstance(values, Tensor):
        return torch.sigmoid(values)
    return sigmoid(values)


def _where(condition: Array, yes: Array, no: Array) -> Array:
    if isinstance(yes, Tensor):
        return torch.where(condition, yes, no)
    return np.where(condition, yes, no)
