"""The elements of one large JSON array, one after the other: the whole of it is never in memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

_SPACE = re.compile(r"[ \t\r\n]*")


class NotAnArrayError(ValueError):
    """Text that is no JSON array; says where."""


def elements(blocks: Iterator[bytes], longest: int) -> Iterator[Any]:
    """The values of a JSON array in UTF-8 that comes in blocks.

    A byte that is not UTF-8 becomes a lone surrogate (PEP 383), so that the checks of that row find
    it and the others live.

    Args:
        longest: characters of one element, about.

    Raises:
        NotAnArrayError: bad JSON, an element that is too long, an end too early, text behind.
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
        text.skip()  # the comma: `value` has looked
    text.skip()
    if text.peek():
        raise NotAnArrayError("more text behind the closing ]")


class _Text:
    """Characters that are still to be read; more are fetched when they are needed."""

    def __init__(self, blocks: Iterator[bytes], longest: int):
        self._blocks = blocks
        self._longest = longest
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._parse = json.JSONDecoder().raw_decode
        self._buffer = ""
        self._place = 0
        self._ended = False

    def peek(self) -> str:
        """The next character that is no space, or nothing at the end."""
        while True:
            space = _SPACE.match(self._buffer, self._place)
            self._place = space.end() if space else self._place
            if self._place < len(self._buffer):
                return self._buffer[self._place]
            if not self._more():
                return ""

    def skip(self) -> None:
        """Leave the character behind that `peek` found."""
        self._place += 1

    def value(self, number: int) -> Any:
        """Parse an element and look at what follows it: only then is it known to be whole."""
        self.peek()
        while True:
            problem = "the text ends in the middle"
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
                    return value
                # "0" before "." may become 0.5; anything else is no longer going to be whole.
                if follows and type(value) not in (int, float):
                    raise NotAnArrayError(f"no comma behind element {number}")
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
