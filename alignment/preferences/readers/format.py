"""What a format is, and the small pieces that several share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alignment.config.intake import IntakeConfig
from alignment.preferences.rows import Found, RowError, Turn

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Keys:
    """What an export of ours left in the store: opaque task id → what was hidden from the
    annotator."""

    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """One shape of row.

    Attributes:
        name: as `--format` takes it.
        matches: does a row look like it?
        read: the comparisons a row stands for. Raises `RowError` where the whole row is bad.
    """

    name: str
    matches: Callable[[Row], bool]
    read: Callable[[Row, IntakeConfig, Keys], list[Found]]


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
    """`row[name]`, which must be text.

    Raises:
        RowError: it is missing or no text.
    """
    value = row.get(name)
    if type(value) is not str:
        if value is None:
            raise RowError("missing_field", name)
        raise RowError("wrong_type", name, f"{type(value).__name__}, not text")
    return value


def label(row: Row, name: str) -> str | None:
    """`row[name]` if there is one; numbers count as names (annotator 17).

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
    """A list of messages as turns; knows {"role","content"} and ShareGPT's {"from","value"}.

    Raises:
        RowError: not such a list.
    """
    if type(value) is not list:
        if value is None:
            raise RowError("missing_prompt", name)
        raise RowError("wrong_type", name, f"{type(value).__name__}, not a list of turns")
    found = []
    for index, message in enumerate(value):
        if type(message) is not dict:
            raise RowError("wrong_type", f"{name}.{index}", f"{type(message).__name__}, not a turn")
        role = message.get("role", message.get("from"))
        content = message.get("content", message.get("value"))
        known = ROLES.get(role) if type(role) is str else None
        if known is None:
            raise RowError("roles", f"{name}.{index}.role", f"unknown role {role!r}"[:80])
        if type(content) is not str:
            raise RowError(
                "wrong_type", f"{name}.{index}.content", f"{type(content).__name__}, not text"
            )
        found.append((known, content))
    return found


def producer(value: Any, name: str) -> tuple[str, float] | None:
    """{"version","temperature"} as a pair.

    Raises:
        RowError: something else.
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


def number(value: Any) -> float | None:
    """A finite number as a float; None for anything else (also for a truth value)."""
    if type(value) not in (int, float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def common_prefix(left: str, right: str) -> int:
    """Length of what two texts begin with; compares whole slices, not characters."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
