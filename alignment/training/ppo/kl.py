"""The KL divergence of the policy from the reference, and its coefficient."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

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


class FixedKL:
    """A constant β."""

    def __init__(self, coefficient: float):
        self.coefficient = coefficient

    def update(self, kl: float, episodes: int) -> None:
        """Do nothing."""

    def state(self) -> float:
        return self.coefficient

    def restore(self, state: float) -> None:
        self.coefficient = state


class AdaptiveKL(FixedKL):
    """β follows the measured KL: β ← β (1 + e·n/horizon), e = clip(KL/target − 1, ±0.2)
    (Ziegler et al. 2019, eq. 11; n episodes since the last update)."""

    def __init__(self, coefficient: float, target: float, horizon: int):
        super().__init__(coefficient)
        self.target = target
        self.horizon = horizon

    def update(self, kl: float, episodes: int) -> None:
        error = min(max(kl / self.target - 1.0, -0.2), 0.2)
        self.coefficient *= 1.0 + error * episodes / self.horizon
