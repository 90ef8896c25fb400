"""Means, variances and whitening over the real tokens of a padded batch."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over all positions where `mask` is True; 0 if there are none.

    Args:
        values: any shape.
        mask: same shape, bool.
    """
    masked = torch.where(mask, values, torch.zeros_like(values))
    return masked.sum() / mask.sum().clamp(min=1)


def masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Biased variance (divided by n) over the positions where `mask` is True."""
    return masked_mean((values - masked_mean(values, mask)) ** 2, mask)


def whiten(
    values: Tensor, mask: Tensor, *, shift_mean: bool = True, epsilon: float = 1e-8
) -> Tensor:
    """Scale to deviation 1 and, with `shift_mean`, to mean 0; positions outside the mask become 0.

    Advantages are whitened with the shift, rewards without it, because shifting rewards would
    change the optimum ("N implementation details", 18; biased variance as there).

    Args:
        values: (b, t).
        mask: (b, t) bool.
    """
    mean = masked_mean(values, mask)
    scaled = (values - mean) * torch.rsqrt(masked_variance(values, mask) + epsilon)
    if not shift_mean:
        scaled = scaled + mean
    return torch.where(mask, scaled, torch.zeros_like(scaled))
