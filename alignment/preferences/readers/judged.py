"""A displayed pair and what people said about it: shared by the annotation tools' exports.

Pairs that `align annotate export` wrote carry an opaque `align_task`; texts, provenance and order
come back from the key that stayed in the store, not from the tool. Pairs of other origin are found
by the usual names of their columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignment.config.intake import IntakeConfig
from alignment.config.vocabulary import STRENGTHS
from alignment.preferences.readers.format import Keys, label, producer, turns
from alignment.preferences.readers.hh import is_transcript, transcript
from alignment.preferences.readers.votes import majority
from alignment.preferences.rows import Draft, RowError, Turn
from alignment.preferences.schema import REJECTED_SAFE

TASK = "align_task"
PROMPTS = ("conversation", "prompt", "question", "instruction", "context", "input")
SIDES = (
    ("answer1", "answer2"),
    ("response1", "response2"),
    ("response-1", "response-2"),
    ("response_1", "response_2"),
    ("response_a", "response_b"),
    ("answer_a", "answer_b"),
    ("completion_a", "completion_b"),
    ("text1", "text2"),
    ("left", "right"),
    ("a", "b"),
)
"""Names of the two answers, first and second."""


@dataclass(frozen=True)
class Verdict:
    """What one person said: `first`, `second` or `tie`, how strongly, which answers are safe."""

    choice: str
    strength: str | None = None
    safe: tuple[bool | None, bool | None] = (None, None)
    annotator: str | None = None


@dataclass(frozen=True)
class Pair:
    """What people saw, with what was hidden from them."""

    conversation: list[Turn]
    answers: tuple[str, str]
    by: tuple[tuple[str, float] | None, tuple[str, float] | None]
    domain: str | None
    category: str | None


def pair_names(shown: Mapping[str, Any]) -> tuple[str, str] | None:
    """Names of the two answers among the fields of a task."""
    for first, second in SIDES:
        if first in shown and second in shown:
            return first, second
    return None


def find_pair(shown: Mapping[str, Any], keys: Keys) -> Pair:
    """The pair behind a task's fields.

    Raises:
        RowError: an unknown task of ours, or fields that hold no pair.
    """
    task = shown.get(TASK)
    if task is not None:
        known = keys.tasks.get(task) if type(task) is str else None
        if known is None:
            raise RowError("unknown_task", TASK, repr(task)[:80])
        first, second = known["first"], known["second"]
        return Pair(
            turns(known["conversation"], "conversation"),
            (first["text"], second["text"]),
            (producer(first.get("by"), "first"), producer(second.get("by"), "second")),
            known.get("domain"),
            known.get("category"),
        )
    names = pair_names(shown)
    if names is None:
        raise RowError("missing_field", "answer1", "no two answers among the fields")
    answers = []
    for name in names:
        value = shown[name]
        if type(value) is not str:
            raise RowError("wrong_type", name, f"{type(value).__name__}, not text")
        answers.append(value.strip())
    return Pair(
        _prompt(shown),
        (answers[0], answers[1]),
        (None, None),
        label(shown, "domain"),
        label(shown, "category"),
    )


def decide(pair: Pair, verdicts: Sequence[Verdict], config: IntakeConfig) -> Draft:
    """The comparison that one or several verdicts make of a pair.

    One person's strength is taken as said. Of several, the majority decides, and the strength is
    the middle one of what the majority said, or their share where they gave none.

    Raises:
        RowError: a tie, or nobody has judged it yet.
    """
    if not verdicts:
        raise RowError("not_annotated", "annotations")
    first, agreed, votes = majority([verdict.choice for verdict in verdicts], config.agreement)
    chosen, rejected = (0, 1) if first else (1, 0)
    said = [verdict for verdict, vote in zip(verdicts, votes, strict=True) if vote == "chosen"]
    strengths = sorted(
        (verdict.strength for verdict in said if verdict.strength is not None),
        key=lambda name: STRENGTHS.index(name) if name in STRENGTHS else -1,
    )
    several = len(verdicts) > 1
    if strengths:
        strength = strengths[len(strengths) // 2]
    else:
        strength = agreed if several else config.strength
    return Draft(
        turns=pair.conversation,
        chosen=pair.answers[chosen],
        rejected=pair.answers[rejected],
        strength=strength,
        domain=pair.domain,
        safety_bin=_bin(said, chosen, rejected),
        chosen_by=pair.by[chosen],
        rejected_by=pair.by[rejected],
        annotator=None if several else verdicts[0].annotator,
        votes=votes if several else None,
        category=pair.category,
    )


def _bin(verdicts: Sequence[Verdict], chosen: int, rejected: int) -> str | None:
    """The bin most people's labels make; unlabelled pairs have none."""
    marks = []
    for side in (chosen, rejected):
        labels = [verdict.safe[side] for verdict in verdicts if verdict.safe[side] is not None]
        if not labels:
            return None
        marks.append(2 * sum(map(bool, labels)) > len(labels))  # in doubt: unsafe
    return {
        (True, True): "both_safe",
        (False, False): "both_unsafe",
        (True, False): "chosen_safe",
        (False, True): REJECTED_SAFE,
    }[marks[0], marks[1]]


def _prompt(shown: Mapping[str, Any]) -> list[Turn]:
    for name in PROMPTS:
        value = shown.get(name)
        if type(value) is list:
            return turns(value, name)
        if type(value) is str and value.strip():
            if is_transcript(value):
                found = transcript(value, name)
                if found[-1] == ("assistant", ""):
                    found.pop()
                return found
            return [("user", value.strip())]
    raise RowError("missing_prompt", "prompt")


def as_choice(value: Any, names: tuple[str, str] | None) -> str:
    """`first`, `second` or `tie` from what a tool wrote.

    Raises:
        RowError: it cannot be read.
    """
    word = str(value).strip().lower()
    if names is not None and word in (names[0].lower(), names[1].lower()):
        return "first" if word == names[0].lower() else "second"
    if word in ("first", "left", "1", "a"):
        return "first"
    if word in ("second", "right", "2", "b"):
        return "second"
    if word in ("tie", "both", "neither", "equal", "0"):
        return "tie"
    raise RowError("bad_vote", "preference", repr(value)[:80])


def as_safe(value: Any) -> bool | None:
    """True for `safe`, False for `unsafe`, None where nothing was said.

    Raises:
        RowError: it cannot be read.
    """
    if value is None or value == "":
        return None
    word = str(value).strip().lower()
    if word in ("safe", "unsafe"):
        return word == "safe"
    raise RowError("bad_vote", "safety", repr(value)[:80])


def as_strength(value: Any) -> str | None:
    """The strength in its short form: "Significantly better" → `significantly`."""
    if value is None or value == "":
        return None
    word = str(value).strip().lower()
    for name in ("significantly", "slightly", "negligibly"):
        if word.startswith(name):
            return name
    return "better" if word.startswith("better") else word
