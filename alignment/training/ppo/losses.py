"""The losses of policy and critic, with diagnostic figures.

Every loss is a *sum* over real tokens divided by `tokens`, the number of real tokens of the whole
mini-batch, so that the losses of micro-batches add up to the mini-batch's mean exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PolicyLoss:
    """`loss` has a gradient; the rest are detached sums over real tokens (divide by tokens)."""

    loss: Tensor
    clipped: Tensor
    approximate_kl: Tensor
    ratio: Tensor
    ratio_error: Tensor


def token_logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """log π of given tokens, in float32.

    Args:
        logits: (..., v), already divided by the temperature.
        tokens: (...) int64.
    """
    logits = logits.float()
    chosen = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return chosen - torch.logsumexp(logits, dim=-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of softmax(logits): (..., v) → (...), in float32."""
    logs = torch.log_softmax(logits.float(), dim=-1)
    return -(logs.exp() * logs).sum(-1)


def policy_loss(
    logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, *, clip: float, tokens: float
) -> PolicyLoss:
    """Clipped surrogate: −min(ρA, clip(ρ, 1−ε, 1+ε)A) (Schulman et al. 2017, eq. 7).

    Args:
        logprobs: (b, t) or (n,) log π_θ of the taken tokens, with a gradient.
        old: same shape, log-probabilities under the policy that drew them.
        advantages: same shape.
        mask: same shape, bool.
        clip: ε.
        tokens: real tokens of the mini-batch.
    """
    # Without the mask, exp of a padded position could overflow, and 0 × inf would give NaN.
    log_ratio = (logprobs - old) * mask
    ratio = log_ratio.exp()
    straight = ratio * advantages
    cut = ratio.clamp(1 - clip, 1 + clip) * advantages
    loss = -(torch.minimum(straight, cut) * mask).sum() / tokens
    with torch.no_grad():
        return PolicyLoss(
            loss=loss,
            clipped=((cut < straight) & mask).sum(),
            approximate_kl=((ratio - 1 - log_ratio) * mask).sum(),
            ratio=(ratio * mask).sum(),
            ratio_error=((ratio - 1).abs() * mask).max() if mask.numel() else ratio.sum(),
        )


def value_loss(
    values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, *, clip: float | None, tokens: float
) -> tuple[Tensor, Tensor]:
    """½ max((V − R)², (clip(V, V_old ± ε) − R)²), the clipped squared error of OpenAI's code.

    Args:
        values: (b, t) or (n,) with a gradient.
        old, returns: same shape.
        mask: same shape, bool.
        clip: ε, or None for the plain squared error.
        tokens: real tokens of the mini-batch.

    Returns:
        the loss, and how many tokens were clipped (detached).
    """
    error = (values - returns) ** 2
    if clip is None:
        return 0.5 * (error * mask).sum() / tokens, torch.zeros_like(error.sum()).detach()
    near = old + (values - old).clamp(-clip, clip)
    near_error = (near - returns) ** 2
    loss = 0.5 * (torch.maximum(error, near_error) * mask).sum() / tokens
    return loss, ((near_error > error) & mask).sum().detach()
