"""The optimiser and the learning-rate schedule of every training."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import get_cosine_with_min_lr_schedule_with_warmup

from alignment.config.optimizer import OptimizerConfig
from alignment.utils import distributed


def make_optimizer(
    parameters: Iterable[nn.Parameter], learning_rate: float, config: OptimizerConfig
) -> torch.optim.AdamW:
    """AdamW over the trainable ones of `parameters`; weight decay applies to matrices only.

    `learning_rate` is the highest rate, which a schedule scales.
    """
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    split = any(distributed.is_shard(parameter) for parameter in learning)
    groups = [
        {"params": [p for p in learning if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=learning_rate,
        betas=config.betas,
        eps=config.adam_epsilon,
        # Sharded and other parameters cannot be in one fused call.
        fused=not split,
        foreach=False if split else None,
    )


def warmup_steps(total: int, ratio: float, minimum: int = 0) -> int:
    """Number of warm-up steps: `ratio` of `total`, rounded up, but always less than `total`.

    Args:
        minimum: lower bound, itself limited to half of `total`.
    """
    return max(0, min(max(math.ceil(total * ratio), min(minimum, total // 2)), total - 1))


def make_schedule(
    optimizer: torch.optim.Optimizer, *, steps: int, warmup: int, min_lr_ratio: float
) -> LambdaLR:
    """Linear warm-up, then half a cosine down to `min_lr_ratio` of the highest rate.

    It is transformers' schedule from its second step on, because the first has rate 0. So step i
    (from 0) of the warm-up has (i + 1) / (warmup + 1) of the rate and step `warmup` all of it; the
    step after the last would have the lowest. With `min_lr_ratio` 1 the rate stays constant after
    the warm-up.
    """
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    schedule: LambdaLR = get_cosine_with_min_lr_schedule_with_warmup(
        optimizer,
        num_warmup_steps=warmup + 1,
        num_training_steps=steps + 1,
        min_lr_rate=min_lr_ratio,
        last_epoch=0,
    )
    return schedule
