"""Turns comparisons into training elements: K answers to one prompt, and their pairs."""

from __future__ import annotations

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
    """Comparisons left out because one side was longer than the limit."""
    dropped_same: int
    """Comparisons left out because both sides have the same tokens."""

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
        max_length: most tokens of an answer with its prompt; longer comparisons are left out.
        labels: give each answer the safety label that its comparison's safety bin implies.
    """
    drafts: dict[str, _Draft] = {}
    long = same = pairs = 0
    for number, row in enumerate(comparisons):
        prompt = renderer.prompt(row.conversation)
        sides = [
            tuple(prompt + renderer.response(text, finished=ended)) for text, ended in row.answers
        ]
        if max(len(side) for side in sides) > max_length:
            long += 1
        elif sides[0] == sides[1]:
            same += 1
        else:
            key = f"g{row.group}" if row.group is not None else f"n{number}"
            margin = margins_of([row.strength], margins)[0]
            safe = SAFE_LABELS.get(row.safety_bin or "") if labels else None
            drafts.setdefault(key, _Draft()).add(sides, margin, safe)
            pairs += 1
    return Elements([draft.element() for draft in drafts.values()], pairs, long, same)


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
