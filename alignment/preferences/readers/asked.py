"""The conversation before the answers, from whichever columns of a row hold it.

A text is one message of the user, or an HH transcript; a list holds messages. `input` completes an
`instruction` (Alpaca), `history` holds the turns before (pairs of texts, or messages), `system`
the system turn. Two columns that say different things are never chosen between: the row is
quarantined.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignment.preferences.readers.format import SHARED, empty, expect, turns, written_empty
from alignment.preferences.readers.transcripts import prompt_turns
from alignment.preferences.rows import RowError, Turn

QUESTIONS = (
    "conversation",
    "conversations",
    "messages",
    "prompt",
    "question",
    "instruction",
    "query",
    "context",
    "input",
)
SYSTEMS = ("system", "system_prompt", "system_message")
COLUMNS = frozenset({*QUESTIONS, *SYSTEMS, "history"})
"""Every column that may hold a part of the conversation."""


def conversation(row: Mapping[str, Any]) -> list[Turn]:
    """The conversation of a row, its system turn included.

    Raises:
        RowError: no column holds one, or two hold different ones.
    """
    found = with_system(row, asked(row))
    if not found:
        raise RowError("missing_prompt", "prompt")
    return found


def asked(row: Mapping[str, Any]) -> list[Turn]:
    """The turns that the columns hold, without the `system` column; empty if there are none.

    Raises:
        RowError: two columns hold different ones, or one holds something else.
    """
    if COLUMNS.isdisjoint(row):
        return []
    found = [(name, row[name]) for name in QUESTIONS if not empty(row.get(name))]
    names = [name for name, _ in found]
    if {"instruction", "input"} <= set(names):
        parts = (expect(str, row[name], name).strip() for name in ("instruction", "input"))
        completed = "\n\n".join(parts)
        found = [
            (name, completed if name == "instruction" else value)
            for name, value in found
            if name != "input"
        ]
    elif names == ["input"] and type(row.get("instruction")) is str:
        raise RowError("missing_prompt", "instruction", "only its input is there")
    history = None if written_empty(row.get("history")) else row["history"]
    if type(history) is str:
        found.append(("history", history))
        history = None
    first: list[Turn] = []
    for name, value in found:
        said = _turns(value, name)
        if not first:
            first = said
        elif not same(first, said):
            raise RowError("two_prompts", name, f"it differs from {found[0][0]!r}")
    return first if history is None else [*_history(history), *first]


def with_system(row: Mapping[str, Any], said: list[Turn]) -> list[Turn]:
    """The turns with those of the `system` column in front.

    Raises:
        RowError: it differs from the system turn that is there, or is not text.
    """
    for name in SYSTEMS:
        if name not in row:
            continue
        value = row[name]
        if written_empty(value):
            continue
        value = expect(str, value, name)
        if not said or said[0][0] != "system":
            said = [("system", value.strip()), *said]
        elif said[0][1].strip() != value.strip():
            raise RowError("two_prompts", name, "it differs from the system turn")
    return said


def agreed(given: list[Turn], found: list[Turn], name: str) -> list[Turn]:
    """What the prompt's columns and the answers' own beginning say together.

    Args:
        given: what the columns hold; may be empty.
        found: what both answers begin with.
        name: the column of the answers, for messages.

    Raises:
        RowError: they differ in more than a system turn that one of them lacks.
    """
    if not given or same(given, found):
        return found
    if found and found[0][0] == "system" and same(given, found[1:]):
        return found
    if given[0][0] == "system" and same(given[1:], found):
        return given
    raise RowError("two_prompts", name, "the answers begin with another conversation")


def same(left: list[Turn], right: list[Turn]) -> bool:
    """Whether two conversations are equal up to white space around their texts."""
    return [(role, text.strip()) for role, text in left] == [
        (role, text.strip()) for role, text in right
    ]


def other_texts(row: Mapping[str, Any]) -> list[str]:
    """Columns beside the answers that could hold the question; never those of ids."""
    return sorted(
        name
        for name, value in row.items()
        if name not in ("chosen", "rejected", "strength", "id", "idx", "index", *SHARED)
        and not name.endswith("_id")
        and type(value) in (str, list, dict)
        and not written_empty(value)
    )


def _turns(value: Any, name: str) -> list[Turn]:
    if type(value) is dict:
        value = [value]
    if type(value) is list:
        return turns(value, name)
    if type(value) is not str:
        raise RowError("wrong_type", name, f"{type(value).__name__}, not text or turns")
    return prompt_turns(value, name)


def _history(value: Any) -> list[Turn]:
    if type(value) is list and all(type(entry) is list for entry in value):
        said: list[Turn] = []
        for index, pair in enumerate(value):
            if len(pair) != 2 or not all(type(part) is str for part in pair):
                raise RowError("wrong_type", f"history.{index}", "not a question and its answer")
            said += [("user", pair[0].strip()), ("assistant", pair[1].strip())]
        return said
    return turns(value, "history")
