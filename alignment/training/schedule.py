"""Learning-rate curve and parameter groups shared by pretraining and fine-tuning."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch


def warmup_steps(total: int, share: float) -> int:
    """Steps with a rising rate: `share` of all, rounded up, but never all of them."""
    return min(math.ceil(total * share), total - 1) if total > 0 else 0


def cosine(step: int, total: int, warmup: int, final: float) -> float:
    """Factor on the highest learning rate at `step` (0-based) of `total`.

    Rises linearly over `warmup` steps (the first step is already above 0), then falls along half a
    cosine to `final`, which is what the step after the last would get.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    share = min(1.0, (step - warmup) / max(1, total - warmup))
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * share))


def parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: matrices are decayed, norms and biases are not."""
    matrices: list[torch.nn.Parameter] = []
    vectors: list[torch.nn.Parameter] = []
    for parameter in _trainable(model):
        (matrices if parameter.ndim >= 2 else vectors).append(parameter)
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _trainable(model: torch.nn.Module) -> Iterator[torch.nn.Parameter]:
    return (parameter for parameter in model.parameters() if parameter.requires_grad)
