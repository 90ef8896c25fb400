"""The running average of the weights, by hand."""

from __future__ import annotations

import pytest
import torch

from alignment.training.ppo.weight_average import average, in_place_of, snapshot


def line(value: float) -> torch.nn.Linear:
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(module.weight, value)
    return module


def test_the_average_keeps_decay_of_itself() -> None:
    module = line(1.0)
    mean = snapshot(module)
    torch.nn.init.constant_(module.weight, 2.0)
    average(mean, module, 0.9)
    assert mean["weight"].item() == pytest.approx(0.9 * 1.0 + 0.1 * 2.0)
    average(mean, module, 0.9)
    assert mean["weight"].item() == pytest.approx(0.9 * 1.1 + 0.1 * 2.0)


def test_weights_in_place_of_the_own_ones_leave_again() -> None:
    module = line(1.0)
    with in_place_of(module, snapshot(line(3.0))):
        assert module.weight.item() == 3.0
    assert module.weight.item() == 1.0
    with in_place_of(module, None):
        assert module.weight.item() == 1.0
