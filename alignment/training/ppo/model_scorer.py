"""Reward models as parts of PPO's reward."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from alignment.models.chat_renderer import ChatRenderer
from alignment.rewards.model import RewardModel
from alignment.training.ppo.scoring import Episode
from alignment.utils import distributed


class ModelScorer:
    """Standardised scores (b,) of a reward model.

    If policy and reward model share tokenizer and chat template, the drawn ids themselves are
    scored; otherwise the answer's text is tokenised again. Several processes each score a share.
    """

    def __init__(self, model: RewardModel, renderer: ChatRenderer):
        self._model = model
        model.choose_pass()
        own, other = renderer.tokenizer, model.renderer.tokenizer
        self._same = (
            own.chat_template == other.chat_template and own.get_vocab() == other.get_vocab()  # type: ignore[attr-defined]
        )

    def __call__(self, episodes: Sequence[Episode]) -> np.ndarray:
        part = distributed.share(len(episodes))
        own = episodes[part.start : part.stop]
        if not own:
            raw = np.empty(0)
        elif self._same:
            raw = self._model.score([episode.tokens for episode in own])
        else:
            raw = self._model.score_texts([(e.prompt.messages, e.text, e.finished) for e in own])
        scores = distributed.gather_rows(torch.from_numpy(raw), len(episodes))
        return self._model.standardise(scores.numpy())


def probability_of(model: RewardModel) -> Callable[[np.ndarray], np.ndarray]:
    """P(safe) from a safety model's standardised scores."""
    return lambda scores: model.probability(scores * model.card.std + model.card.mean)
