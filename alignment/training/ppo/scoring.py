"""The reward of PPO: named parts, combined into one score per answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch

from alignment.config.rewards import CombineConfig
from alignment.errors import StageError
from alignment.models.chat_renderer import ChatRenderer, Message, Tokens
from alignment.rewards.combined import Multiplier, combine, routes_to_safety
from alignment.rewards.model import RewardModel
from alignment.utils import distributed


@dataclass(frozen=True)
class PromptItem:
    """A prompt to learn on.

    Attributes:
        ids: token ids of the policy's tokenizer.
        messages: the conversation as text, for reward models with another tokenizer.
        is_safety: whether it is tagged as a safety prompt.
    """

    ids: tuple[int, ...]
    messages: tuple[Message, ...] = ()
    is_safety: bool = False


@dataclass(frozen=True)
class Episode:
    """One answer to one prompt."""

    prompt: PromptItem
    tokens: Tokens
    finished: bool
    renderer: ChatRenderer | None = field(default=None, repr=False)

    @cached_property
    def text(self) -> str:
        """The answer as text, decoded on first use."""
        return "" if self.renderer is None else self.renderer.text(self.tokens.response)


EpisodeScorer = Callable[[Sequence[Episode]], np.ndarray]
"""Gives scores (b,) of episodes, on a scale on which scores can be added."""

TextScorer = Callable[[Sequence[Message], str], float]
"""Any function of a conversation and an answer."""


@dataclass(frozen=True)
class Scores:
    """Scores of a batch.

    Attributes:
        total: (b,) the reward that training uses.
        parts: named (b,) arrays for display; `combined` is the total before batch whitening.
        figures: named numbers (multiplier, share of safety-routed answers).
    """

    total: np.ndarray
    parts: dict[str, np.ndarray]
    figures: dict[str, float]


class Reward(Protocol):
    """A reward that PPO can maximise."""

    def score(self, episodes: Sequence[Episode], *, learn: bool) -> Scores:
        """Score a batch.

        With `learn` it is a training batch and may change the reward's state. Without, the scale is
        that of the start, so that looks at different times can be compared.
        """

    def state(self) -> dict[str, Any]:
        """JSON state for checkpoints."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a state from a checkpoint."""
        return


class PlainReward(Reward):
    """A reward of one scorer."""

    def __init__(self, scorer: EpisodeScorer):
        self._scorer = scorer

    def score(self, episodes: Sequence[Episode], *, learn: bool) -> Scores:
        total = checked("reward", self._scorer(episodes), len(episodes))
        return Scores(total, {"combined": total}, {})


class ModelScorer:
    """Standardised scores (b,) of a reward model.

    If policy and reward model share tokenizer and chat template, the drawn ids themselves are
    scored, with the end that the reward model learned in place of another one that was drawn: the
    policy cannot earn a score by the choice of an end. Otherwise the answer's text is tokenised
    again. Several processes each score a share.
    """

    def __init__(self, model: RewardModel, renderer: ChatRenderer):
        self._model = model
        model.choose_pass()
        own, other = renderer.tokenizer, model.renderer.tokenizer
        self._same = (
            own.chat_template == other.chat_template and own.get_vocab() == other.get_vocab()
        )

    def __call__(self, episodes: Sequence[Episode]) -> np.ndarray:
        part = distributed.share(len(episodes))
        own = episodes[part.start : part.stop]
        if self._same:
            raw = self._model.score([self._ended(episode) for episode in own])
        else:
            tokens = self._model.renderer.tokens  # of each alone: processes share them out
            raw = self._model.score(
                [tokens(e.prompt.messages, e.text, finished=e.finished) for e in own]
            )
        scores = distributed.gather_rows(torch.from_numpy(raw), len(episodes))
        return self._model.standardise(scores.numpy())

    def _ended(self, episode: Episode) -> Tokens:
        """The drawn ids behind the prompt as the reward model reads it everywhere."""
        renderer, response = self._model.renderer, episode.tokens.response
        if episode.finished:
            response = [*response[:-1], renderer.end]
        if not episode.prompt.messages:
            return Tokens(episode.tokens.prompt, response)
        return renderer.join(episode.prompt.messages, response)


class CombinedReward:
    """Helpfulness and safety scores, combined by `combine`, plus any functions of the text.

    Args:
        helpfulness, safety: give standardised scores.
        probability: P(safe) from safety scores, for the piecewise threshold; σ if None.
        extra: name → (function of conversation and answer, weight), added to the combination.
    """

    def __init__(
        self,
        helpfulness: EpisodeScorer,
        safety: EpisodeScorer,
        config: CombineConfig,
        *,
        probability: Callable[[np.ndarray], np.ndarray] | None = None,
        extra: Mapping[str, tuple[TextScorer, float]] | None = None,
    ):
        self._helpfulness = helpfulness
        self._safety = safety
        self._config = config
        self._plain = config.model_copy(update={"whiten": False})
        self._probability = probability
        self._extra = dict(extra or {})
        self.multiplier = Multiplier.start(config)

    def score(self, episodes: Sequence[Episode], *, learn: bool) -> Scores:
        count = len(episodes)
        helpfulness = checked("helpfulness", self._helpfulness(episodes), count)
        safety = checked("safety", self._safety(episodes), count)
        tagged = np.array([episode.prompt.is_safety for episode in episodes])
        parts = {"helpfulness": helpfulness, "safety": safety}
        figures: dict[str, float] = {}
        chance = self._probability(safety) if self._probability is not None else None
        if self._config.method == "constrained":
            if learn:
                self.multiplier.update(float(safety.mean()), self._config)
            figures["reward/multiplier"] = self.multiplier.value
        if self._config.method == "piecewise":
            probability = 1 / (1 + np.exp(-safety)) if chance is None else chance
            if not np.isnan(probability).any():
                under = probability < self._config.threshold
                figures["reward/under_threshold"] = float(under.mean())
            routed = routes_to_safety(probability, tagged, self._config.threshold)
            figures["reward/safety_routed"] = float(routed.mean())

        def together(config: CombineConfig) -> np.ndarray:
            return combine(
                helpfulness,
                safety,
                tagged,
                config,
                probability=chance,
                multiplier=self.multiplier.value if learn else self._config.multiplier,
            )

        plain = together(self._plain)
        # Only training whitens over a batch; when scores are displayed, their mean must show.
        total = together(self._config) if learn and count > 1 else plain
        for name, (function, weight) in self._extra.items():
            parts[name] = np.array([_ask(name, function, episode) for episode in episodes])
            total = total + weight * parts[name]
            plain = plain + weight * parts[name]
        return Scores(total, {**parts, "combined": plain}, figures)

    def unwhitened(self, episodes: Sequence[Episode]) -> np.ndarray:
        """Scores (b,) that change no state and are not whitened, for early stopping; `constrained`
        at the λ of the start, as guards have it too."""
        return self.score(episodes, learn=False).parts["combined"]

    def state(self) -> dict[str, Any]:
        return {"log_multiplier": self.multiplier.log}

    def restore(self, state: dict[str, Any]) -> None:
        self.multiplier.log = state["log_multiplier"]


def _ask(name: str, function: TextScorer, episode: Episode) -> float:
    """The score of one answer by a function of the user's.

    Raises:
        StageError: it is no finite number; the error names the function and the answer.
    """
    value: Any = function(episode.prompt.messages, episode.text)
    try:
        score = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError):
        score = math.nan
    if math.isfinite(score):
        return score
    spelled = getattr(function, "__qualname__", type(function).__name__)
    raise StageError(
        f"the reward function {spelled} of part {name!r} returned {value!r:.80} for the answer "
        f"{episode.text!r:.120}",
        where="ppo.parts",
        remedy="it must return a finite number for every answer, also for an empty one; nothing "
        "was learned from it",
    )


def checked(name: str, scores: np.ndarray, count: int) -> np.ndarray:
    """`scores` as float64 (b,).

    Raises:
        StageError: they have another shape, or are not finite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (count,):
        raise StageError(
            f"reward part {name!r} gave scores of shape {scores.shape} for {count} answers",
            remedy="a part must return one number for each answer",
        )
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        raise StageError(
            f"reward part {name!r} gave {bad} scores that are not finite",
            remedy="look at the reward model's own evaluation; nothing was learned from them",
        )
    return scores
