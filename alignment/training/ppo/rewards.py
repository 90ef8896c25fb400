"""Turns scores of whole answers into a reward for each token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def shape_scores(
    scores: Tensor,
    lengths: Tensor,
    finished: Tensor,
    *,
    missing_eos_penalty: float = 0.0,
    length_penalty: float = 0.0,
) -> Tensor:
    """Scores minus the penalties for a cut answer and for each token.

    A penalty alone can be outbid by what a reward model gives for a missing end, so that with one
    no cut answer is worth more than the worst that ended, minus the penalty.

    Args:
        scores: (b,) combined reward of each answer.
        lengths: (b,) tokens of each answer.
        finished: (b,) bool, the answer ended with EOS.

    Returns:
        (b,)
    """
    if missing_eos_penalty:
        lowest = scores.masked_fill(~finished, torch.inf).min()
        worth = torch.minimum(scores, lowest) - missing_eos_penalty
        scores = torch.where(finished, scores, worth)
    return scores - length_penalty * lengths.to(scores.dtype)


def place(scores: Tensor, kl: Tensor, mask: Tensor, *, coefficient: float) -> Tensor:
    """Reward of each token: −β KL_i, and the score on the answer's last real token.

    The last real token of a finished answer is its EOS, not the position after it.

    Args:
        scores: (b,).
        kl: (b, t) KL per token.
        mask: (b, t) bool, with at least one True a row.
        coefficient: β.

    Returns:
        (b, t), 0 outside the mask.
    """
    rewards = torch.where(mask, -coefficient * kl, torch.zeros_like(kl))
    last = mask.sum(1) - 1
    rows = torch.arange(len(scores), device=scores.device)
    rewards[rows, last] += scores.to(rewards.dtype)
    return rewards


class RunningMoments:
    """Mean and variance of all values so far, updated batch by batch (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count = 0.0
        self.mean = 0.0
        self.squares = 0.0

    def update(self, values: Tensor) -> None:
        """Add a batch (b,)."""
        values = values.double()
        count = float(values.numel())
        if count == 0:
            return
        mean = float(values.mean())
        squares = float(((values - mean) ** 2).sum())
        total = self.count + count
        shift = mean - self.mean
        self.squares += squares + shift**2 * self.count * count / total
        self.mean += shift * count / total
        self.count = total

    @property
    def deviation(self) -> float:
        """Biased standard deviation; 1 before the first batch and while all values are equal."""
        variance = self.squares / self.count if self.count else 0.0
        return float(variance**0.5) if variance > 0 else 1.0

    def normalise(self, values: Tensor) -> Tensor:
        """(values − mean) / deviation."""
        return (values - self.mean) / self.deviation

    def state(self) -> dict[str, float]:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def restore(self, state: dict[str, Any]) -> None:
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]
