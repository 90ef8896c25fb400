"""Anthropic's HH-RLHF: two transcripts `chosen` and `rejected` that part at the last answer."""

from __future__ import annotations

import re

from alignment.config.intake import IntakeConfig
from alignment.preferences.readers.format import Format, Keys, Row, common_prefix, label, text
from alignment.preferences.rows import Draft, Found, RowError, Turn

MARKER = "\n\nAssistant:"
_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLE = {"Human": "user", "Assistant": "assistant"}


def is_transcript(value: object) -> bool:
    """Does a text begin like a transcript of HH?"""
    return type(value) is str and value.lstrip().startswith("Human:")


def transcript(value: str, name: str) -> list[Turn]:
    """The turns of a transcript. A marker inside a text cannot be told from a turn.

    Raises:
        RowError: it does not begin with a turn.
    """
    start, *parts = _TURN.split(value if value.startswith("\n\n") else "\n\n" + value.lstrip())
    if start.strip():
        raise RowError("roles", name, "text before the first turn")
    return [(_ROLE[parts[index]], parts[index + 1].strip()) for index in range(0, len(parts), 2)]


def part(chosen: str, rejected: str) -> tuple[str, str, str]:
    """Common transcript and the two answers.

    The answers begin at the last `Assistant:` that both transcripts have in common; an answer that
    goes on with turns of its own is no answer to the same conversation.

    Raises:
        RowError: the transcripts have no `Assistant:` turn in common.
    """
    left, right = chosen.rfind(MARKER), rejected.rfind(MARKER)
    if left < 0 or right < 0:
        raise RowError("missing_prompt", "chosen" if left < 0 else "rejected", "no Assistant turn")
    if left != right or chosen[:left] != rejected[:right]:
        common = chosen[: common_prefix(chosen, rejected)]
        left = common.rfind(MARKER)
        if left < 0:
            raise RowError("no_common_prompt", "rejected", "the transcripts differ from the start")
    cut = left + len(MARKER)
    answers = chosen[cut:], rejected[cut:]
    for field, answer in zip(("chosen", "rejected"), answers, strict=True):
        if _TURN.search(answer):
            raise RowError("no_common_prompt", field, "more turns follow where the two part")
    return chosen[:left], answers[0].strip(), answers[1].strip()


def _read(row: Row, config: IntakeConfig, _keys: Keys) -> list[Found]:
    conversation, chosen, rejected = part(text(row, "chosen"), text(row, "rejected"))
    return [
        Draft(
            turns=transcript(conversation, "chosen"),
            chosen=chosen,
            rejected=rejected,
            strength=label(row, "strength") or config.strength,
            domain=label(row, "domain"),
            annotator=label(row, "annotator"),
            category=label(row, "category"),
        )
    ]


def _matches(row: Row) -> bool:
    return "prompt" not in row and is_transcript(row.get("chosen")) and "rejected" in row


FORMAT = Format("hh", _matches, _read)
