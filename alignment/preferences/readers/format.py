"""The interface of a format, and helpers that several formats share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from alignment.config.intake import IntakeConfig
from alignment.preferences.readers.judged import AnnotatedPair, AnnotatorVerdict
from alignment.preferences.rows import By, Draft, DraftOrError, RowError, Turn

Row = Mapping[str, Any]
TaskKeys = Mapping[str, Mapping[str, Any]]
"""Keys of our own exports: opaque task id → what was hidden from the annotator."""


SHARED = frozenset({"domain", "annotator", "category", "corrects"})
"""Columns that most formats share, see `draft`."""
_UNREADABLE = re.compile(
    r"(?:^|[_.\-])(?:tools?|functions?_calls?|functions|tool_calls|images?|pictures?|videos?"
    r"|audios?|documents|attachments)(?:$|[_.\-])",
    re.IGNORECASE,
)
"""Names of columns and of parts of messages that change what an answer means, and that no reader
can read."""
_ID = re.compile(r"[0-9a-f]{16}")
_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True)
class Format:
    """One shape of row.

    Attributes:
        name: the value of `--format`.
        matches: whether a row has this shape.
        read: returns the comparisons of a row. Raises `RowError` if the whole row is bad.
        columns: the columns that `read` understands; the report lists all others.
        shown: the columns of a row as people know them, where an envelope is around them.
        verdict: the pair and one person's verdict on it, of a format in which each person has a row
            of their own. The rows of one pair are put together.
    """

    name: str
    matches: Callable[[Row], bool]
    read: Callable[[Row, IntakeConfig, TaskKeys], list[DraftOrError]]
    columns: frozenset[str]
    shown: Callable[[Row], Row] = lambda row: row
    verdict: Callable[[Row, TaskKeys], tuple[AnnotatedPair, AnnotatorVerdict]] | None = None

    def unused(self, row: Row) -> list[str]:
        """The columns of a row that hold something and are not read.

        Raises:
            RowError: one of them changes the meaning of the row (tools, pictures).
        """
        names: list[str] = []
        for name, value in self.shown(row).items():
            if name in self.columns:
                names += _unsaid_parts(name, value)
            elif not written_empty(value):
                if is_unreadable(name) and value not in (False, 0):
                    raise RowError("unreadable", name, "texts alone are not what was judged")
                names.append(name)
        return names


def is_unreadable(name: str) -> bool:
    """Whether a column or a part of a message of this name holds more than texts can say."""
    return _UNREADABLE.search(_CAPITAL.sub("_", name)) is not None


def _unsaid_parts(column: str, value: Any) -> list[str]:
    """Parts of a column's messages that are not read, each once: `chosen[].weight`."""
    if type(value) is not list:
        return []
    messages = [one for one in value if type(one) is dict and ("role" in one or "from" in one)]
    return sorted(
        {
            f"{column}[].{part}"
            for message in messages
            for part, held in message.items()
            if part not in ("role", "from", "content", "value") and not empty(held)
        }
    )


ROLES = {
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
    "developer": "system",
}
"""Roles in any case → ours."""
_UNSAID = frozenset({"reasoning_content", "reasoning", "thinking", "tool_call_id", "refusal"})
"""Further parts of a message, beside the unreadable ones, that change what it says."""


def empty(value: Any) -> bool:
    """Whether a column holds nothing: null, white space, an empty list or object."""
    return not value.strip() if type(value) is str else value in (None, [], {})


def written_empty(value: Any) -> bool:
    """`empty`, or a list or an object written out as text, of a column that is no person's text."""
    return empty(value) or (type(value) is str and value.strip() in ("[]", "{}", "null"))


T = TypeVar("T", str, bool, list[Any], dict[str, Any])
_KINDS = {str: "text", list: "a list", dict: "an object", bool: "true or false"}


def expect(kind: type[T], value: Any, name: str, missing: str = "missing_field") -> T:
    """`value`, if it is a text (`str`), a truth value, a list or an object (`dict`).

    Args:
        missing: the reason if there is none.

    Raises:
        RowError: it is None, or something else.
    """
    if type(value) is not kind:
        if value is None:
            raise RowError(missing, name)
        raise RowError("wrong_type", name, f"{type(value).__name__}, not {_KINDS[kind]}")
    return value


def text(row: Row, name: str) -> str:
    """The text at `row[name]`.

    Raises:
        RowError: it is missing, or not text.
    """
    return expect(str, row.get(name), name)


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
        RowError: not a list of messages, an unknown role, or a part that is no text.
    """
    dialogue = []
    for index, message in enumerate(expect(list, value, name, missing="missing_prompt")):
        where = f"{name}.{index}"
        message = expect(dict, message, where)
        role = _either(message, "role", "from", where)
        canonical_role = ROLES.get(role.lower()) if type(role) is str else None
        if canonical_role is None:
            raise RowError("unknown_role", f"{where}.role", repr(role)[:80])
        for part, held in message.items():
            if (is_unreadable(str(part)) or part in _UNSAID) and not written_empty(held):
                raise RowError("unreadable", f"{where}.{part}", "texts alone are not what was said")
        content = _content(_either(message, "content", "value", where), f"{where}.content")
        dialogue.append((canonical_role, content))
    return dialogue


def _either(message: dict[str, Any], name: str, other: str, where: str) -> Any:
    value, second = message.get(name), message.get(other)
    if value is None or second is None:
        return second if value is None else value
    if value != second:
        raise RowError("wrong_type", where, f"{name!r} and {other!r} differ")
    return value


def _content(value: Any, name: str) -> str:
    """The text of a message: as it is, or as OpenAI's list with one part of text."""
    if type(value) is str:
        return value
    if type(value) is not list:
        raise RowError("wrong_type", name, f"{type(value).__name__}, not text")
    kinds = [part.get("type") if type(part) is dict else None for part in value]
    if kinds != ["text"]:
        raise RowError("unreadable", name, "not one part of text, but " + repr(kinds)[:80])
    return expect(str, value[0].get("text"), f"{name}.0.text")


def producer(value: Any, name: str) -> By | None:
    """{"version", "temperature"}, and perhaps "finished", true if it is null; None stays None.

    Raises:
        RowError: any other value.
    """
    if value is None:
        return None
    value = expect(dict, value, name)
    version = expect(str, value.get("version"), f"{name}.version")
    temperature: Any = value.get("temperature")
    degrees = number(temperature)
    if degrees is None or not 0 <= degrees < 1000:
        raise RowError("wrong_type", f"{name}.temperature", type(temperature).__name__)
    finished = value.get("finished")
    ended = finished is None or expect(bool, finished, f"{name}.finished")
    return By(version, degrees, ended)


def draft(
    row: Row, conversation: list[Turn], answers: tuple[str, str], strength: str, **fields: Any
) -> Draft:
    """A comparison with the columns that most formats share, `SHARED`.

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
        category=category(row),
        corrects=corrects(row),
        **fields,
    )


def corrects(row: Row) -> bool | str:
    """Whether the row says that it corrects an earlier verdict: `true`, or the id of that one.

    Raises:
        RowError: any other value.
    """
    value = row.get("corrects")
    if value is None or type(value) is bool or value == "":
        return bool(value)
    word = str(value).strip().lower()
    if type(value) is str and (word in ("true", "false") or _ID.fullmatch(word)):
        return word == "true" if word in ("true", "false") else word
    raise RowError("wrong_type", "corrects", "neither true nor the id of a comparison")


def category(row: Row, name: str = "category") -> str | None:
    """The label at `row[name]`; of a list or of an object of truth values, the names that apply."""
    value: Any = row.get(name)
    if type(value) is dict:
        value = [key for key, applies in value.items() if applies is True]
    if type(value) is list:
        return ", ".join(str(part) for part in value if type(part) in (str, int)) or None
    return None if type(value) in (bool, float) else label(row, name)


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
