"""Reward models as parts of PPO's reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from alignment.models.chat import ChatRenderer
from alignment.rewards.model import RewardModel
from alignment.training.ppo.scoring import Episode


class ModelScorer:
    """Standardised scores (b,) of a reward model.

    Where policy and reward model share tokenizer and chat template, the very ids that were drawn
    are scored; else the answer goes through text.
    """

    def __init__(self, model: RewardModel, renderer: ChatRenderer):
        self._model = model
        mine, its = renderer.tokenizer, model.renderer.tokenizer
        self._same = (
            mine.chat_template == its.chat_template and mine.get_vocab() == its.get_vocab()  # type: ignore[attr-defined]
        )

    def __call__(self, episodes: Sequence[Episode]) -> np.ndarray:
        if self._same:
            raw = self._model.score([episode.tokens for episode in episodes])
        else:
            raw = self._model.score_texts(
                [(e.prompt.messages, e.text, e.finished) for e in episodes]
            )
        return self._model.standardise(raw)


def probability_of(model: RewardModel) -> Callable[[np.ndarray], np.ndarray]:
    """P(safe) from a safety model's standardised scores."""
    return lambda scores: model.probability(scores * model.card.std + model.card.mean)
