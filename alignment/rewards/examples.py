"""Turns comparisons into training elements: K answers to one prompt, and their pairs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignment.config.rewards import Margins
from alignment.models.chat_renderer import ChatRenderer
from alignment.rewards.losses import margins_of

if TYPE_CHECKING:
    from alignment.preferences.schema import Comparison

SAFE_LABELS = {"chosen_safe": (1.0, 0.0), "both_safe": (1.0, 1.0), "both_unsafe": (0.0, 0.0)}
"""Safety bin → safe label of the chosen and of the rejected answer (Llama 2 §3.2.1)."""


@dataclass(frozen=True)
class Pair:
    """One pair; `chosen` and `rejected` are positions in the element's answers."""

    chosen: int
    rejected: int
    margin: float = 0.0


@dataclass(frozen=True)
class Element:
    """K answers to one prompt and their pairs; a single comparison has K = 2 and one pair.

    Attributes:
        sequences: token ids of the prompt and each answer.
        pairs: at least one pair.
        labels: for each answer 1.0 safe, 0.0 unsafe, None unknown.
    """

    sequences: tuple[tuple[int, ...], ...]
    pairs: tuple[Pair, ...]
    labels: tuple[float | None, ...] = ()

    @property
    def longest(self) -> int:
        """Tokens of the longest answer with its prompt."""
        return max(len(sequence) for sequence in self.sequences)


@dataclass(frozen=True)
class Elements:
    """All elements of a training set, and counts of what was left out."""

    elements: list[Element]
    pairs: int
    """Comparisons in `elements`."""
    dropped_long: int
    """Comparisons left out because an answer leaves its prompt too little of the limit."""
    dropped_same: int
    """Comparisons left out because both sides have the same tokens."""
    cut_prompts: int = 0
    """Comparisons whose prompt lost turns or tokens at the front."""

    @property
    def tokens(self) -> int:
        """Tokens of all answers with their prompts, each answer counted once."""
        return sum(len(ids) for element in self.elements for ids in element.sequences)

    @property
    def labelled(self) -> int:
        """Answers that carry a safety label."""
        return sum(label is not None for element in self.elements for label in element.labels)


def build(
    comparisons: Iterable[Comparison],
    renderer: ChatRenderer,
    *,
    margins: Margins,
    max_length: int,
    labels: bool = False,
) -> Elements:
    """Tokenise comparisons; those of one `group` become one element, in order of appearance.

    Args:
        max_length: most tokens of an answer with its prompt. A longer prompt loses whole turns from
            the front, the same ones for both answers; a comparison is left out if its prompt would
            be cut to less than a quarter.
        labels: give each answer the safety label that its comparison's safety bin implies.
    """
    drafts: dict[str, _Draft] = {}
    long = same = pairs = cut = 0
    rows = []
    longest: dict[str, int] = {}  # answer of an element: its sides have one prompt
    for number, row in enumerate(comparisons):
        key = f"g{row.group}" if row.group is not None else f"n{number}"
        answers = [renderer.response(text, finished=ended) for text, ended in row.answers]
        whole = renderer.prompt(row.conversation, limit=sys.maxsize)
        tokens = max(map(len, answers))
        asked = min(len(whole), renderer.max_prompt_tokens or len(whole))
        if max_length - tokens < min(asked, max(1, max_length // 4)):
            long += 1
            continue
        longest[key] = max(longest.get(key, 0), tokens)
        rows.append((key, row, whole, answers))
    for key, row, whole, answers in rows:
        room = max_length - longest[key]
        limit = min(room, renderer.max_prompt_tokens or room)
        prompt = whole
        if len(whole) > limit:
            prompt = renderer.prompt(row.conversation, limit=limit)
        sides = [tuple(prompt + answer) for answer in answers]
        if sides[0] == sides[1]:
            same += 1
            continue
        margin = margins_of([row.strength], margins)[0]
        safe = SAFE_LABELS.get(row.safety_bin or "") if labels else None
        drafts.setdefault(key, _Draft()).add(sides, margin, safe)
        pairs += 1
        cut += len(whole) > limit
    return Elements([draft.element() for draft in drafts.values()], pairs, long, same, cut)


class _Draft:
    """An element under construction; each distinct answer occurs once."""

    def __init__(self) -> None:
        self.answers: dict[tuple[int, ...], float | None] = {}
        self.pairs: list[Pair] = []

    def add(
        self,
        sides: Sequence[tuple[int, ...]],
        margin: float,
        safe: tuple[float, float] | None,
    ) -> None:
        for side, label in zip(sides, safe or (None, None), strict=True):
            if self.answers.get(side) is None:
                self.answers[side] = label
        order = list(self.answers)
        self.pairs.append(Pair(order.index(sides[0]), order.index(sides[1]), margin))

    def element(self) -> Element:
        return Element(tuple(self.answers), tuple(self.pairs), tuple(self.answers.values()))
