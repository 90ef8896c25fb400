"""Advantages: generalised advantage estimation, and leave-one-out for RLOO."""

from __future__ import annotations

import torch
from torch import Tensor


def generalised_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Advantages and returns (Schulman et al. 2016, eq. 11 and 16).

    δ_i = r_i + γ V_{i+1} − V_i and A_i = δ_i + γλ A_{i+1}. V after an answer's last token is 0,
    because the episode ends there, by EOS or at the token limit. Returns are A + V.

    Args:
        rewards: (b, t).
        values: (b, t) value of the state in which token i was chosen.
        mask: (b, t) bool.

    Returns:
        advantages (b, t), returns (b, t); both 0 outside the mask.
    """
    values = values * mask
    rewards = rewards * mask
    advantages = torch.zeros_like(values)
    running = torch.zeros_like(values[:, 0])
    following = torch.zeros_like(values[:, 0])
    for i in range(values.shape[1] - 1, -1, -1):
        delta = rewards[:, i] + gamma * following - values[:, i]
        running = (delta + gamma * lam * running) * mask[:, i]
        advantages[:, i] = running
        following = values[:, i]
    return advantages, (advantages + values) * mask


def discounted_returns(rewards: Tensor, mask: Tensor, *, gamma: float = 1.0) -> Tensor:
    """Σ_k γ^k r_{i+k} from each token to the end of its answer (Monte-Carlo, λ = 1), (b, t).

    What a critic predicts: returns of λ < 1 contain its own values, so that they always agree with
    it in part.
    """
    return generalised_advantages(rewards, torch.zeros_like(rewards), mask, gamma=gamma, lam=1.0)[1]


def leave_one_out(totals: Tensor, samples: int) -> Tensor:
    """A_k = R_k − mean of the other answers' R to the same prompt (RLOO, Ahmadian et al. 2024).

    Args:
        totals: (b,) total reward of each episode; the answers to a prompt are adjacent.
        samples: answers per prompt, at least 2.

    Returns:
        (b,)
    """
    grouped = totals.view(-1, samples)
    others = (grouped.sum(1, keepdim=True) - grouped) / (samples - 1)
    return (grouped - others).reshape(-1)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 − Var[returns − values] / Var[returns] on real tokens; 0 if returns do not vary.

    Args:
        returns: (b, t) of `discounted_returns`: with λ-returns even noise explains much of long
            answers' variance.

    1 is a perfect critic, 0 a constant one, and a critic below 0 does harm.
    """
    real_returns = returns[mask]
    if real_returns.numel() == 0 or (spread := real_returns.var(unbiased=False)) == 0:
        return returns.new_zeros(())
    return 1 - (real_returns - values[mask]).var(unbiased=False) / spread
