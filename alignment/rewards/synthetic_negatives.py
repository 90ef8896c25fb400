"""Comparisons that need no annotator: a chosen answer beside the same answer spoilt.

What a policy finds when it climbs reward models are often answers that nobody ever judged, because
no policy used to give them: loops, word salad, fluent answers to another question. Models that
were trained on the same kind of comparisons are fooled by them alike, a guard too. One that has
seen such answers lose is not (Liu et al. 2024, 2409.13156, add answers to other prompts to all
training; loops and scrambled words are ours).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignment.preferences.schema import Comparison, SafetyBin
from alignment.rewards.mixture import Source
from alignment.utils.seeds import derive_seed

SPAN = 8
"""A loop repeats at most so many words."""
AGAIN = 3
"""... at most so many times more."""
KINDS = ("looped", "scrambled", "stray")


def spoilt(sources: Sequence[Source], share: float, seed: int) -> list[Source]:
    """A share of the comparisons again, each with a spoilt copy of its chosen answer in the place
    of the rejected one.

    Looped: a span of words said again. Scrambled: a span's words in another order. Stray: the
    chosen answer of another conversation, for helpfulness only: where a refusal is right, another
    prompt's refusal is no worse. Spoiling makes no answer less safe, so a looped or scrambled one
    keeps the chosen answer's safety label.

    Args:
        sources: what the guard learns from.
        share: chance that a comparison is used, by seed and its id.

    Returns:
        The new comparisons, in the order of `sources`; ones that spoiling does not change are left
        out.
    """
    others = [s.comparison for s in sources if s.comparison.domain == "helpfulness"]
    found = []
    for source in sources:
        row = source.comparison
        draw = np.random.Generator(np.random.Philox(key=derive_seed(seed, "spoilt", row.id)))
        if draw.random() >= share:
            continue
        kind = KINDS[int(draw.integers(len(KINDS)))]
        if kind == "stray":
            text, label = _stray(row, others, draw), None
        else:
            text = (looped if kind == "looped" else scrambled)(row.chosen, draw)
            label = _label(row)
        if text is None or text.split() == row.chosen.split():
            continue
        made = Comparison(
            conversation=row.conversation,
            chosen=row.chosen,
            rejected=text,
            domain=row.domain,
            safety_bin=label,
            category=row.category,
        )
        found.append(Source(source.batch, made))
    return found


def looped(text: str, draw: np.random.Generator) -> str:
    """The text with a span of words said up to `AGAIN` times more."""
    words = text.split()
    if not words:
        return text
    length = int(draw.integers(1, min(SPAN, len(words)) + 1))
    end = int(draw.integers(length, len(words) + 1))
    more = words[end - length : end] * int(draw.integers(1, AGAIN + 1))
    return " ".join([*words[:end], *more, *words[end:]])


def scrambled(text: str, draw: np.random.Generator) -> str:
    """The text with the words of a span of at least three in another order."""
    words = text.split()
    if not words:
        return text
    length = int(draw.integers(min(3, len(words)), len(words) + 1))
    start = int(draw.integers(0, len(words) - length + 1))
    span = [words[start + place] for place in draw.permutation(length)]
    return " ".join([*words[:start], *span, *words[start + length :]])


def _stray(row: Comparison, others: Sequence[Comparison], draw: np.random.Generator) -> str | None:
    """The chosen answer of another conversation; None where one would be no worse."""
    if row.domain == "safety" or not others:
        return None
    other = others[int(draw.integers(len(others)))]
    return None if other.conversation == row.conversation else other.chosen


def _label(row: Comparison) -> SafetyBin | None:
    """The bin of two answers that are both as safe as the chosen one."""
    return "both_safe" if row.safety_bin == "chosen_safe" else row.safety_bin
