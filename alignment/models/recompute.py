"""Gradient checkpointing of models that are in eval mode, where transformers leaves it off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def can_recompute(model: Any) -> bool:
    """Have `recomputing` work on a model; False if its architecture cannot."""
    if not getattr(model, "supports_gradient_checkpointing", False):
        return False
    model.activation_checkpointing_enable({"use_reentrant": False})
    return True


@contextmanager
def recomputing(module: nn.Module) -> Iterator[None]:
    """Keep of each block its input alone for the backward pass, which computes the rest again, to
    the same bits; for a model that `can_recompute` saw.

    The blocks are in training mode inside, and nothing in them: no dropout begins.
    """
    blocks = [part for part in module.modules() if getattr(part, "gradient_checkpointing", False)]
    before = [block.training for block in blocks]
    for block in blocks:
        block.training = True
    try:
        yield
    finally:
        for block, training in zip(blocks, before, strict=True):
            block.training = training
