"""Streams the elements of a large JSON array, without holding the whole array in memory, and finds
keys that stand twice in one object."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_SPACE = re.compile(r"[ \t\r\n]*")


class NotAnArrayError(ValueError):
    """The text is not a JSON array; the message says where."""


class UniqueKeys:
    """For `object_pairs_hook`: makes dictionaries, and remembers a key that an object repeats.

    Python keeps the last of two values without a word.
    """

    def __init__(self) -> None:
        self.repeated: str | None = None

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """One object of the text."""
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            self.repeated = next(name for name in names if names.count(name) > 1)
        return found


class RepeatedKey(NamedTuple):
    """An element with a key that stands twice in one object."""

    name: str
    value: Any


def array_elements(blocks: Iterator[bytes], longest: int) -> Iterator[Any]:
    """The values of a JSON array in UTF-8 that arrives in blocks.

    A byte that is not UTF-8 becomes a lone surrogate (PEP 383): the checks then refuse that row
    alone. An element with a repeated key comes as `RepeatedKey`.

    Args:
        longest: approximate maximum of characters in one element.

    Raises:
        NotAnArrayError: bad JSON, an element that is too long, a premature end, or trailing text.
    """
    text = _Text(blocks, longest)
    if text.peek() != "[":
        raise NotAnArrayError("it does not begin with [")
    text.skip()
    number = 0
    while text.peek() != "]" or number:
        number += 1
        yield text.value(number)
        if text.peek() == "]":
            break
        text.skip()  # the comma, which `value` has checked
    text.skip()
    if text.peek():
        raise NotAnArrayError("trailing text after the closing ]")


class _Text:
    """A buffer of unread characters that is refilled on demand."""

    def __init__(self, blocks: Iterator[bytes], longest: int):
        self._blocks = blocks
        self._longest = longest
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._keys = UniqueKeys()
        self._parse = json.JSONDecoder(object_pairs_hook=self._keys).raw_decode
        self._buffer = ""
        self._place = 0
        self._ended = False

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            space = _SPACE.match(self._buffer, self._place)
            self._place = space.end() if space else self._place
            if self._place < len(self._buffer):
                return self._buffer[self._place]
            if not self._more():
                return ""

    def skip(self) -> None:
        """Consume the character that `peek` returned."""
        self._place += 1

    def value(self, number: int) -> Any:
        """Parse an element. It is complete only if a comma or a bracket follows."""
        self.peek()
        while True:
            problem = "the text ends in the middle"
            self._keys.repeated = None
            try:
                value, end = self._parse(self._buffer, self._place)
            except (ValueError, RecursionError) as error:
                problem = str(error).split(":")[0]
            else:
                space = _SPACE.match(self._buffer, end)
                end = space.end() if space else end
                follows = self._buffer[end : end + 1]
                if follows and follows in ",]":
                    self._place = end
                    repeated = self._keys.repeated
                    return value if repeated is None else RepeatedKey(repeated, value)
                # More text can turn "0" into "0.5"; it cannot complete any other value.
                if follows and type(value) not in (int, float):
                    raise NotAnArrayError(f"no comma after element {number}")
            if len(self._buffer) - self._place > self._longest:
                raise NotAnArrayError(f"element {number} is broken or too long: {problem}")
            if not self._more():
                raise NotAnArrayError(f"element {number}: {problem}")

    def _more(self) -> bool:
        if self._ended:
            return False
        block = next(self._blocks, b"")
        self._ended = not block
        self._buffer = self._buffer[self._place :] + self._decode(block, final=not block)
        self._place = 0
        return not self._ended
