"""The interface of a format, and helpers that several formats share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from alignment.config.intake import IntakeConfig
from alignment.preferences.rows import Draft, DraftOrError, RowError, Turn

Row = Mapping[str, Any]
TaskKeys = Mapping[str, Mapping[str, Any]]
"""Keys of our own exports: opaque task id → what was hidden from the annotator."""


@dataclass(frozen=True)
class Format:
    """One shape of row.

    Attributes:
        name: the value of `--format`.
        matches: whether a row has this shape.
        read: returns the comparisons of a row. Raises `RowError` if the whole row is bad.
    """

    name: str
    matches: Callable[[Row], bool]
    read: Callable[[Row, IntakeConfig, TaskKeys], list[DraftOrError]]


ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "system": "system",
}


def text(row: Row, name: str) -> str:
    """The text at `row[name]`.

    Raises:
        RowError: it is missing, or not text.
    """
    value = row.get(name)
    if type(value) is not str:
        if value is None:
            raise RowError("missing_field", name)
        raise RowError("wrong_type", name, f"{type(value).__name__}, not text")
    return value


def label(row: Row, name: str) -> str | None:
    """The optional label at `row[name]`; a number becomes text (annotator 17).

    Raises:
        RowError: it is a list, an object or a truth value.
    """
    value = row.get(name)
    if value is None or type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    raise RowError("wrong_type", name, f"{type(value).__name__}, not text")


def turns(value: Any, name: str) -> list[Turn]:
    """Messages as turns: {"role", "content"} or ShareGPT's {"from", "value"}.

    Raises:
        RowError: not a list of messages.
    """
    if type(value) is not list:
        if value is None:
            raise RowError("missing_prompt", name)
        raise RowError("wrong_type", name, f"{type(value).__name__}, not a list of turns")
    dialogue = []
    for index, message in enumerate(value):
        if type(message) is not dict:
            raise RowError("wrong_type", f"{name}.{index}", f"{type(message).__name__}, not a turn")
        role = message.get("role", message.get("from"))
        content = message.get("content", message.get("value"))
        canonical_role = ROLES.get(role) if type(role) is str else None
        if canonical_role is None:
            raise RowError("roles", f"{name}.{index}.role", f"unknown role {role!r}"[:80])
        if type(content) is not str:
            raise RowError(
                "wrong_type", f"{name}.{index}.content", f"{type(content).__name__}, not text"
            )
        dialogue.append((canonical_role, content))
    return dialogue


def producer(value: Any, name: str) -> tuple[str, float] | None:
    """{"version", "temperature"} as a pair; None stays None.

    Raises:
        RowError: any other value.
    """
    if value is None:
        return None
    if type(value) is not dict:
        raise RowError("wrong_type", name, f"{type(value).__name__}, not an object")
    version: Any = value.get("version")
    temperature: Any = value.get("temperature")
    if type(version) is not str:
        raise RowError("wrong_type", f"{name}.version", f"{type(version).__name__}, not text")
    degrees = number(temperature)
    if degrees is None or not 0 <= degrees < 1000:
        raise RowError("wrong_type", f"{name}.temperature", type(temperature).__name__)
    return version, degrees


def draft(
    row: Row, conversation: list[Turn], answers: tuple[str, str], strength: str, **fields: Any
) -> Draft:
    """A comparison with the columns that most formats share: `domain`, `annotator`, `category`.

    Args:
        answers: the chosen and the rejected one.
        fields: further fields of `Draft`.

    Raises:
        RowError: a shared column holds a list, an object or a truth value.
    """
    chosen, rejected = answers
    return Draft(
        turns=conversation,
        chosen=chosen,
        rejected=rejected,
        strength=strength,
        domain=label(row, "domain"),
        annotator=label(row, "annotator"),
        category=label(row, "category"),
        **fields,
    )


def number(value: Any) -> float | None:
    """A finite number as a float; None for anything else, truth values included."""
    if type(value) not in (int, float):
        return None
    try:
        converted = float(value)
    except OverflowError:
        return None
    return converted if math.isfinite(converted) else None


def common_prefix(left: str, right: str) -> int:
    """Length of the common beginning of two texts, by bisection over slices."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
