"""The KL divergence of the policy from the reference, and its coefficient."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from alignment.config.ppo import KLConfig

Estimator = Literal["k1", "k3"]


def kl_per_token(logprobs: Tensor, reference: Tensor, estimator: Estimator = "k1") -> Tensor:
    """Estimate of KL(π ‖ π_ref) from tokens drawn from π (Schulman, "Approximating KL", 2020).

    With ρ = π_ref/π: k1 = −log ρ is unbiased; k3 = ρ − 1 − log ρ is unbiased too, never negative
    and varies less.

    Args:
        logprobs: (b, t) log π of the taken tokens.
        reference: (b, t) log π_ref of the same tokens.
    """
    log_ratio = reference - logprobs
    if estimator == "k1":
        return -log_ratio
    return torch.expm1(log_ratio) - log_ratio


class KLCoefficient:
    """β: constant, or with a target it follows the measured KL.

    β ← β (1 + e·n/horizon), e = clip(KL/target − 1, ±0.2) (Ziegler et al. 2019, eq. 11; n episodes
    since the last update).
    """

    def __init__(self, config: KLConfig):
        self._config = config
        self.value = config.coefficient

    def update(self, kl: float, episodes: int) -> None:
        """Adapt β after an iteration with this mean KL, in nats an answer."""
        if self._config.target is not None:
            error = min(max(kl / self._config.target - 1.0, -0.2), 0.2)
            self.value *= 1.0 + error * episodes / self._config.horizon
