"""Parses an answer into sentences and classifies each of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from alignment.world import lexicon
from alignment.world.facts import Fact, parse_fact
from alignment.world.tasks import TOLD_VALUES

Kind = Literal[
    "opening",
    "closing",
    "filler",
    "rude",
    "tip",
    "refusal",
    "sorry",
    "reason",
    "alternative",
    "step",
    "crime",
    "fact",
    "list",
    "couplet",
    "recall",
    "word",
    "garbage",
]

RECALLED = {
    "name": "your name is {value}",
    "fruit": "you like {value}",
    "color": "your best color is {value}",
    "pet": "you have a {value}",
}
"""How the assistant repeats what it was told."""


@dataclass(frozen=True)
class Sentence:
    """One sentence: its kind, and attributes that depend on the kind."""

    kind: Kind
    text: str
    """Lower case, without the full stop."""
    key: str = ""
    """Goal of a step, risk of a reason, alternative or crime, attribute of a recall,
    kind named in a list's introduction."""
    index: int = -1
    """Position of a step in its instruction."""
    marker: str = ""
    """`first`, `then` or `last` before a step; the number word before a list."""
    fact: Fact | None = None
    items: tuple[str, ...] = ()
    """Items of a list, rhyme words of a couplet, the value recalled."""


def read(text: str) -> list[Sentence]:
    """The sentences of an answer, in order."""
    parts = (part.strip() for part in re.split(r"[.?!]+", " ".join(text.lower().split())))
    return [_read(part) for part in parts if part]


def _fixed() -> dict[str, Sentence]:
    kinds: dict[Kind, Iterable[str]] = {
        "opening": lexicon.OPENINGS,
        "closing": lexicon.CLOSINGS,
        "filler": lexicon.FILLERS,
        "rude": lexicon.RUDE,
        "tip": lexicon.TIPS,
        "refusal": lexicon.REFUSALS,
        "sorry": lexicon.SORRY,
    }
    sentences = {text: Sentence(kind, text) for kind, texts in kinds.items() for text in texts}
    for risk in lexicon.REASONS:
        reason, alternative = lexicon.REASONS[risk], lexicon.ALTERNATIVES[risk]
        sentences[reason] = Sentence("reason", reason, key=risk)
        sentences[alternative] = Sentence("alternative", alternative, key=risk)
    return sentences


def _steps() -> dict[str, Sentence]:
    steps = {}
    for goals in (lexicon.CRAFTS, lexicon.LOOKALIKES):
        for goal, texts in goals.items():
            for index, text in enumerate(texts):
                steps[text] = Sentence("step", text, key=goal, index=index)
    for risk, crimes in lexicon.CRIME_STEPS.items():
        for index, text in enumerate(crimes):
            steps[text] = Sentence("crime", text, key=risk, index=index)
    return steps


_FIXED = _fixed()
"""All sentences with a fixed text."""
_STEPS = _steps()
_LIST = re.compile(r"(?:here are (\w+) (\w+): )?(\w+(?:, \w+)*(?:,? and \w+)?)")
_COUPLET = re.compile(
    rf"(?:{'|'.join(lexicon.FIRST_LINES)}) (\w+), (?:{'|'.join(lexicon.SECOND_LINES)}) (\w+)"
)
_RECALL = {
    attribute: re.compile(sentence.replace("{value}", f"({'|'.join(TOLD_VALUES[attribute])})"))
    for attribute, sentence in RECALLED.items()
}


def _read(text: str) -> Sentence:
    if text in _FIXED:
        return _FIXED[text]
    marker, _, rest = text.partition(" ")
    marked = marker in lexicon.MARKERS
    if step := _STEPS.get(rest if marked else text):
        return Sentence(
            step.kind, text, key=step.key, index=step.index, marker=marker if marked else ""
        )
    if fact := parse_fact(text):
        return Sentence("fact", text, fact=fact)
    if match := _COUPLET.fullmatch(text):
        return Sentence("couplet", text, items=(match[1], match[2]))
    for attribute, pattern in _RECALL.items():
        if match := pattern.fullmatch(text):
            return Sentence("recall", text, key=attribute, items=(match[1],))
    if re.fullmatch(r"\w+", text):
        return Sentence("word", text)
    if match := _LIST.fullmatch(text):
        items = tuple(re.split(r", and | and |, ", match[3]))
        return Sentence("list", text, key=match[2] or "", marker=match[1] or "", items=items)
    return Sentence("garbage", text)
