"""Scores of held-out comparisons, with the attributes of each comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alignment.models.chat_renderer import Tokens
from alignment.preferences.schema import framed, opening
from alignment.rewards.mixture import Source
from alignment.rewards.model import RewardModel


@dataclass(frozen=True)
class Measured:
    """Scores and attributes of n held-out comparisons; all arrays are (n,).

    Attributes:
        chosen, rejected: raw scores.
        chosen_safe, rejected_safe: P(safe) by the model.
        chosen_tokens, rejected_tokens: lengths of the answers.
        bins: safety bin, or "" if there is none.
        opening: number of the opening, the same for comparisons that share it (rankings, turns of
            a dialogue): these are not independent, so intervals resample openings.
    """

    chosen: np.ndarray
    rejected: np.ndarray
    chosen_safe: np.ndarray
    rejected_safe: np.ndarray
    chosen_tokens: np.ndarray
    rejected_tokens: np.ndarray
    strength: np.ndarray
    domain: np.ndarray
    batch: np.ndarray
    bins: np.ndarray
    opening: np.ndarray

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def right(self) -> np.ndarray:
        """1 where the chosen answer scores higher, ½ for a tie, otherwise 0."""
        right: np.ndarray = (self.chosen > self.rejected) + 0.5 * (self.chosen == self.rejected)
        return right

    @property
    def longer(self) -> np.ndarray:
        """The same for the baseline that always prefers the longer answer."""
        more = self.chosen_tokens > self.rejected_tokens
        right: np.ndarray = more + 0.5 * (self.chosen_tokens == self.rejected_tokens)
        return right

    def where(self, chosen: np.ndarray | slice) -> Measured:
        """The comparisons that a boolean array or a slice selects."""
        return Measured(**{name: getattr(self, name)[chosen] for name in self.__dataclass_fields__})


def measure(model: RewardModel, sources: Sequence[Source], tokens_per_batch: int) -> Measured:
    """Score both sides of every comparison.

    The comparisons of one batch and domain are scored by themselves, so that a later measurement
    beside further batches finds them in the cache.
    """
    items = []
    parts: dict[tuple[str, str], list[int]] = {}
    for number, source in enumerate(sources):
        row = source.comparison
        parts.setdefault((source.batch, row.domain), []).append(number)
        answers = [model.renderer.response(text, finished=ended) for text, ended in row.answers]
        items.append(model.renderer.side_by_side(row.conversation, answers))
    raw = np.empty((len(items), 2))
    for numbers in parts.values():
        both = [item for number in numbers for item in items[number]]
        raw[numbers] = model.score(both, tokens_per_batch).reshape(-1, 2)
    safe = model.probability(raw)
    lengths = np.array([[len(item.response) for item in both] for both in items], dtype=np.int64)
    lengths = lengths.reshape(-1, 2)
    rows = [source.comparison for source in sources]
    return Measured(
        chosen=raw[:, 0],
        rejected=raw[:, 1],
        chosen_safe=safe[:, 0],
        rejected_safe=safe[:, 1],
        chosen_tokens=lengths[:, 0],
        rejected_tokens=lengths[:, 1],
        strength=np.array([row.strength for row in rows], dtype=object),
        domain=np.array([row.domain for row in rows], dtype=object),
        batch=np.array([source.batch for source in sources], dtype=object),
        bins=np.array([row.safety_bin or "" for row in rows], dtype=object),
        opening=_numbered([framed(*opening(row.conversation)) for row in rows]),
    )


def cut_scores_higher(
    model: RewardModel, sources: Sequence[Source], tokens_per_batch: int
) -> np.ndarray:
    """(n,) booleans: the chosen answer scores higher if its end is missing.

    Answers that were cut already are left out.
    """
    items = []
    for row in (source.comparison for source in sources):
        text, finished = row.answers[0]
        if finished:
            whole = model.renderer.tokens(row.conversation, text)
            items += [whole, Tokens(whole.prompt, whole.response[:-1])]
    raw = model.score(items, tokens_per_batch).reshape(-1, 2)
    higher: np.ndarray = raw[:, 1] > raw[:, 0]
    return higher


def _numbered(names: list[str]) -> np.ndarray:
    """(n,) numbers that are equal where the names are."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], dtype=np.int64)
