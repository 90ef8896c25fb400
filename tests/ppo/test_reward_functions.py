"""A reward function of the user's that answers with no number is named, with the answer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from alignment.config.rewards import CombineConfig
from alignment.errors import StageError
from alignment.models.chat_renderer import Tokens
from alignment.training.ppo.scoring import CombinedReward, Episode, PromptItem


def scored(function: Any) -> np.ndarray:
    """The part that `function` adds, for two answers."""

    def zero(episodes: Any) -> np.ndarray:
        return np.zeros(len(episodes))

    reward = CombinedReward(zero, zero, CombineConfig(), extra={"mine": (function, 1.0)})
    prompt = PromptItem((1, 2))
    return reward.score([Episode(prompt, Tokens([1], [2]), True)] * 2, learn=True).parts["mine"]


@pytest.mark.parametrize(
    "value", [None, math.nan, math.inf, -math.inf, "1.0", b"1", "", [], [1.0, 2.0], {}, object()]
)
def test_no_number(value: Any) -> None:
    def brief(conversation: Any, answer: str) -> Any:
        return value

    with pytest.raises(StageError, match=r"function .*brief of part 'mine' returned") as caught:
        scored(brief)
    assert "for the answer ''" in caught.value.message
    assert caught.value.where == "ppo.parts"


@pytest.mark.parametrize("value", [1, 1.0, True, np.float32(1), np.array(1.0), torch.tensor(1.0)])
def test_every_kind_of_number(value: Any) -> None:
    assert scored(lambda *_: value).tolist() == [1.0, 1.0]


def test_looks_of_a_constrained_reward_are_on_one_scale() -> None:
    """The same answers look the same, however λ has moved in training."""
    config = CombineConfig(method="constrained", floor=1.0, multiplier_rate=0.1)
    episode = Episode(PromptItem((1,)), Tokens([1], [2]), True)

    def constant(value: float) -> Any:
        return lambda episodes: np.full(len(episodes), value)

    reward = CombinedReward(constant(1.0), constant(-2.0), config)
    before = reward.unwhitened([episode] * 4)
    assert before.tolist() == [-0.5] * 4  # (1 − 2) / 2
    for _ in range(60):
        trained = reward.score([episode] * 4, learn=True)
    assert reward.multiplier.value == pytest.approx(config.multiplier_limit)
    assert reward.unwhitened([episode] * 4).tolist() == before.tolist()
    assert trained.total.mean() < -1.5  # training climbs the present price
