"""Comparisons that need no annotator: a chosen answer beside a corrupted copy of itself.

A policy that exploits reward models often gives answers that nobody ever judged, because no earlier
policy gave them: loops, word salad, fluent answers to another question. All models that were
trained on the same kind of comparisons are fooled by them, and a guard is too. A guard that has
seen such answers lose is not (Liu et al. 2024, 2409.13156, add answers to other prompts to all
training; loops and scrambled words are ours).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from alignment.preferences.schema import Comparison, SafetyBin
from alignment.rewards.mixture import Source
from alignment.utils.seeds import derive_seed

SPAN = 8
"""Most words that a loop repeats."""
AGAIN = 3
"""Most times that it repeats them."""
KINDS = ("looped", "scrambled", "stray")


def spoilt(sources: Sequence[Source], share: float, seed: int) -> list[Source]:
    """Copies of a share of the comparisons, in which a spoilt chosen answer is the rejected one.

    A looped answer repeats a span of words. A scrambled one has the words of a span in another
    order. A stray one is the chosen answer of another conversation; this is for helpfulness only,
    because where a refusal is right, another prompt's refusal is no worse. Spoiling makes no answer
    less safe, so a looped or scrambled one keeps the chosen answer's safety label.

    Args:
        share: probability that a comparison is used; its id and the seed decide.

    Returns:
        The new comparisons, in the order of `sources`, without those that spoiling did not change.
    """
    others = [s.comparison for s in sources if s.comparison.domain == "helpfulness"]
    negatives = []
    for source in sources:
        row = source.comparison
        draw = np.random.Generator(np.random.Philox(key=derive_seed(seed, "spoilt", row.id)))
        if draw.random() >= share:
            continue
        kind = KINDS[int(draw.integers(len(KINDS)))]
        by, label = row.chosen_by, _label(row)  # a spoilt answer ends as the chosen one does
        if kind == "stray":
            other = _stray(row, others, draw)
            if other is None:
                continue
            text, by, label = other.chosen, other.chosen_by, None
        else:
            text = (looped if kind == "looped" else scrambled)(row.chosen, draw)
        if text.split() == row.chosen.split():
            continue
        comparison = Comparison(
            conversation=row.conversation,
            chosen=row.chosen,
            rejected=text,
            domain=row.domain,
            safety_bin=label,
            chosen_by=row.chosen_by,
            rejected_by=by,
            category=row.category,
        )
        negatives.append(replace(source, comparison=comparison))
    return negatives


def looped(text: str, draw: np.random.Generator) -> str:
    """The text with a span of words repeated up to `AGAIN` times."""
    words = text.split()
    if not words:
        return text
    length = int(draw.integers(1, min(SPAN, len(words)) + 1))
    end = int(draw.integers(length, len(words) + 1))
    more = words[end - length : end] * int(draw.integers(1, AGAIN + 1))
    return " ".join([*words[:end], *more, *words[end:]])


def scrambled(text: str, draw: np.random.Generator) -> str:
    """The text with the words of a span, of three or more if there are, in another order."""
    words = text.split()
    if not words:
        return text
    length = int(draw.integers(min(3, len(words)), len(words) + 1))
    start = int(draw.integers(0, len(words) - length + 1))
    span = [words[start + place] for place in draw.permutation(length)]
    return " ".join([*words[:start], *span, *words[start + length :]])


def _stray(
    row: Comparison, others: Sequence[Comparison], draw: np.random.Generator
) -> Comparison | None:
    """One of another conversation, for its chosen answer; None for safety, or without another."""
    if row.domain == "safety" or not others:
        return None
    other = others[int(draw.integers(len(others)))]
    return None if other.conversation == row.conversation else other


def _label(row: Comparison) -> SafetyBin | None:
    """The bin of a comparison whose answers are both as safe as the chosen one."""
    return "both_safe" if row.safety_bin == "chosen_safe" else row.safety_bin
