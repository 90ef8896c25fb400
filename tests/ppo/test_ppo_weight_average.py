"""The running average of weights, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from alignment.training.ppo.weight_average import average, in_place_of, put, snapshot


def module(value: float, dtype: torch.dtype = torch.float32) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False, dtype=dtype)
    put(layer, {"weight": torch.full((1, 1), value)})
    return layer


def test_the_decay_is_what_stays() -> None:
    layer = module(1.0)
    mean = snapshot(layer)
    put(layer, {"weight": torch.full((1, 1), 2.0)})
    average(mean, layer, 0.9)
    assert mean["weight"].item() == pytest.approx(1.1)  # 1.9, were it the other way round
    average(mean, layer, 0.9)
    assert mean["weight"].item() == pytest.approx(0.9 * 1.1 + 0.1 * 2.0)


def test_a_slow_average_of_16_bit_weights_moves() -> None:
    layer = module(1.0, torch.bfloat16)
    mean = snapshot(layer, torch.float32)
    put(layer, {"weight": torch.full((1, 1), 1.0625)})
    for _ in range(200):
        average(mean, layer, 0.992)
    assert mean["weight"].item() == pytest.approx(1.0625 - 0.0625 * 0.992**200, abs=1e-4)


def test_other_weights_are_in_place_for_the_block_only() -> None:
    layer = module(1.0)
    with in_place_of(layer, {"weight": torch.full((1, 1), 5.0)}):
        assert layer.weight.item() == 5.0
    assert layer.weight.item() == 1.0
    with pytest.raises(ValueError, match="stop"), in_place_of(layer, {"weight": torch.ones(1, 1)}):
        raise ValueError("stop")
    assert layer.weight.item() == 1.0
    with in_place_of(layer, None):
        assert layer.weight.item() == 1.0


def test_a_snapshot_is_a_copy() -> None:
    for dtype in (None, torch.float32):
        layer = module(1.0)
        copied = snapshot(layer, dtype)
        put(layer, {"weight": torch.full((1, 1), 2.0)})
        assert copied["weight"].item() == 1.0
