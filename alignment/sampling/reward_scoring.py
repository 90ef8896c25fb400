"""Scores answers with both reward models and combines the two scores; processes share the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignment.config.compute import ComputeConfig
from alignment.config.rewards import CombineConfig
from alignment.models.load import resolve_device, weight_bytes
from alignment.preferences.prompts import Prompt
from alignment.rewards.cache import ScoreCache
from alignment.rewards.combined import combine
from alignment.rewards.identified import unidentified
from alignment.rewards.model import RewardModel
from alignment.rewards.threshold import fitted
from alignment.utils.threads import side_by_side

ACTIVATIONS = 0.5
"""Memory of a scoring pass as a share of one model's weights: ample from a billion parameters on,
whose passes of 16,384 tokens keep one layer's activations at a time."""
FLOOR = 2**30
"""Bytes that a scoring pass takes at least, in a small model too."""


def scoring_bytes(stages: Sequence[Path], compute: ComputeConfig) -> int:
    """Bytes of a GPU that the reward models of these stages take, with a pass of one of them."""
    if resolve_device(compute.device).type == "cpu":
        return 0
    weights = [weight_bytes(stage / "model", compute.dtype) for stage in stages]
    return sum(weights) + max(FLOOR, int(ACTIVATIONS * max(weights)))


@dataclass(frozen=True)
class AnswerToScore:
    """An answer that is to be scored."""

    prompt: Prompt
    text: str
    finished: bool


@dataclass(frozen=True)
class AnswerScores:
    """Scores of n answers, each an array (n,).

    Attributes:
        helpfulness, safety: standardised scores.
        safe_probability: P(safe) by the safety model; NaN if it has none (`rewards.identified`).
        reward: the combined reward.
    """

    helpfulness: np.ndarray
    safety: np.ndarray
    safe_probability: np.ndarray
    reward: np.ndarray


@dataclass(frozen=True)
class RewardScorer:
    """Scores answers with both reward models and combines the two."""

    helpfulness: RewardModel
    safety: RewardModel
    config: CombineConfig

    @classmethod
    def load(
        cls,
        helpfulness: Path,
        safety: Path,
        config: CombineConfig,
        compute: ComputeConfig,
        cache: ScoreCache | None = None,
    ) -> RewardScorer:
        """Load both models.

        Args:
            helpfulness, safety: directories of the two reward stages.
            cache: scores found in it are not computed again.
        """
        models = [
            RewardModel.of_stage(stage / "model", compute, cache) for stage in (helpfulness, safety)
        ]
        if unidentified(models[1].card) is None:  # else no threshold applies, nor need it be found
            config = fitted(config, safety)
        return cls(models[0], models[1], config)

    @property
    def unidentified(self) -> str | None:
        """Why P(safe) is not known, so that no threshold applies to it; None if it is."""
        return unidentified(self.safety.card)

    def score(self, answers: Sequence[AnswerToScore]) -> AnswerScores:
        """Scores in the order of the answers. Answers to be compared must be scored in one call: a
        whitened combination is relative to the answers it is computed over."""
        rows = [(one.prompt.messages, one.text, one.finished) for one in answers]
        raw_helpfulness, raw = side_by_side(
            [lambda: self.helpfulness.score_texts(rows), lambda: self.safety.score_texts(rows)],
            min(self.helpfulness.workers, self.safety.workers),
        )
        helpfulness = self.helpfulness.standardise(raw_helpfulness)
        safety = self.safety.standardise(raw)
        probability = self.safety.probability(raw)
        if self.unidentified is not None:
            probability = np.full_like(probability, np.nan)
        tagged = np.array([one.prompt.tag_safety for one in answers], dtype=bool)
        reward = combine(helpfulness, safety, tagged, self.config, probability=probability)
        return AnswerScores(helpfulness, safety, probability, np.asarray(reward))
