"""Losses against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from alignment.config.rewards import MARGINS, RewardsConfig
from alignment.config.vocabulary import STRENGTHS
from alignment.rewards.losses import label_loss, margins_of, ranking_loss


def test_ranking_loss_by_hand() -> None:
    chosen, rejected = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.0, 1.0, 2.0])
    expected = [math.log(1 + math.exp(-1)), math.log(1 + math.e), math.log(2)]
    assert ranking_loss(chosen, rejected).tolist() == pytest.approx(expected)
    # A margin equal to the gap makes the loss log 2, whatever the gap.
    assert ranking_loss(chosen, rejected, chosen - rejected).tolist() == pytest.approx(
        [math.log(2)] * 3
    )


def test_ranking_loss_does_not_overflow() -> None:
    loss = ranking_loss(torch.tensor([-1e4]), torch.tensor([1e4]))
    assert loss.item() == pytest.approx(2e4)


def test_gradient_grows_with_the_margin() -> None:
    gap = torch.tensor([0.5], requires_grad=True)
    gradients = []
    for margin in (0.0, 1.0, 3.0):
        (slope,) = torch.autograd.grad(ranking_loss(gap, torch.zeros(1), margin).sum(), gap)
        gradients.append(-slope.item())
    # −dL/dgap = σ(m − gap)
    expected = [1 / (1 + math.exp(0.5 - m)) for m in (0.0, 1.0, 3.0)]
    assert gradients == pytest.approx(expected)


def test_label_loss_by_hand() -> None:
    loss = label_loss(torch.tensor([2.0, 2.0, 0.0]), torch.tensor([1.0, 0.0, 1.0]))
    expected = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(2)), math.log(2)]
    assert loss.tolist() == pytest.approx(expected)


def test_margin_tables_are_the_papers() -> None:
    assert margins_of(list(STRENGTHS), MARGINS["none"]) == [0, 0, 0, 0]
    assert margins_of(list(STRENGTHS), MARGINS["small"]) == [1, 2 / 3, 1 / 3, 0]
    assert margins_of(list(STRENGTHS), MARGINS["large"]) == [3, 2, 1, 0]
    own = RewardsConfig.model_validate({"margin": {"better": 0.5}}).margin_table
    assert margins_of(list(STRENGTHS), own) == [0, 0.5, 0, 0]
    with pytest.raises(KeyError):
        margins_of(["much better"], own)


@pytest.mark.parametrize("margin", ["own", {"better": -1.0}, {"much better": 1.0}])
def test_a_margin_is_a_known_name_or_a_table_of_strengths(margin: object) -> None:
    with pytest.raises(ValueError, match="margin"):
        RewardsConfig.model_validate({"margin": margin})
