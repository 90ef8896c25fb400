"""Copies of a module's trainable weights: the running average, and the best so far."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def learning(module: nn.Module) -> dict[str, nn.Parameter]:
    """Trainable parameters, by name; tied ones once."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


@torch.no_grad()
def snapshot(module: nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Copies of the trainable parameters, by default in their own format."""
    return {name: p.detach().to(dtype, copy=True) for name, p in learning(module).items()}


@torch.no_grad()
def put(module: nn.Module, weights: dict[str, Tensor]) -> None:
    """Write copies back into the module."""
    for name, parameter in learning(module).items():
        parameter.copy_(weights[name])


@torch.no_grad()
def average(mean: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    """mean ← decay · mean + (1 − decay) · weights, in place."""
    for name, parameter in learning(module).items():
        mean[name].lerp_(parameter.detach().to(mean[name].dtype), 1 - decay)


@contextmanager
def in_place_of(module: nn.Module, weights: dict[str, Tensor] | None) -> Iterator[None]:
    """Use `weights` in the block, and the module's own again after it; None changes nothing."""
    if weights is None:
        yield
        return
    own = snapshot(module)
    put(module, weights)
    try:
        yield
    finally:
        put(module, own)
