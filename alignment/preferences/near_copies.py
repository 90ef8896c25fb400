"""Finds prompts that are almost the same as another one: in other words, but for a few."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from alignment.preferences.schema import opening, plain

NEAR = 0.7
"""Least Jaccard similarity of near copies."""
WORDS = 3
"""Words of a shingle; a text of fewer has one, of all its words."""


def near_copies(texts: Sequence[str], among: Iterable[str], *, least: float = NEAR) -> np.ndarray:
    """Mask (n,) of the texts that have a near copy `among` others.

    Similarity is Jaccard's, of the sets of three successive words without case and punctuation
    (Broder 1997). It is computed exactly, by an inverted index over the smaller side.
    """
    sets = [shingles(text) for text in texts]
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, parts in enumerate(sets):
        for part in parts:
            holders[part].append(number)
    near = np.zeros(len(sets), dtype=bool)
    for other in set(map(plain, among)):
        theirs = shingles(other)
        shared = Counter(number for part in theirs for number in holders.get(part, ()))
        for number, common in shared.items():
            if common >= least * (len(sets[number]) + len(theirs) - common):
                near[number] = True
    return near


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """The sets of `WORDS` successive words of a text."""
    words = plain(text).split()
    last = max(1, len(words) - WORDS + 1)
    return frozenset(tuple(words[start : start + WORDS]) for start in range(last))


def question(conversation: Iterable[Mapping[str, Any]]) -> str:
    """The `plain` text of a conversation's first user turn. A system message before it, often the
    same in a whole delivery, would make all its questions alike."""
    return "".join(opening(conversation)[-1:])
