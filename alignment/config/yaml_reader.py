"""YAML as settings are written in it: one meaning, or an error that names the line.

The values are those of YAML 1.2's core schema, read from PyYAML's tree of nodes: `no` and `off` are
words, `1e-5` is a number, a date is text. What another reader would take for something else (`010`,
`1_000`, `12:30`), what would win silently (a key given twice) and what cannot be stored (`.inf`) is
refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from alignment.errors import ConfigError

LARGEST = 256 * 1024
"""Characters of a file: no configuration has more."""
MOST_VALUES = 20_000
"""Values of a document after its aliases are replaced by what they stand for."""
DEEPEST = 50
"""Levels of a document."""

_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|nan)", re.IGNORECASE)
_AMBIGUOUS = re.compile(
    r"[-+]?(0[0-9]+"  # octal in YAML 1.1
    r"|0[xobXOB][0-9a-fA-F_]+"
    r"|[0-9.]+(_[0-9.]*)+([eE][-+]?[0-9]+)?"
    r"|[0-9]+(:[0-5]?[0-9])+(\.[0-9]*)?)"  # to the base of 60 in YAML 1.1
)

Place = Callable[[yaml.Node], str]


class _Loader(yaml.SafeLoader):
    """Tells scalars without quotes from those with; leaves their meaning to `_Values`."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        plain = kind is yaml.ScalarNode and implicit[0]
        return "plain" if plain else "quoted"


def compose(text: str) -> yaml.Node | None:
    """The tree of nodes of a document; None if it is empty.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    except (ValueError, OverflowError) as error:  # "\U00110000"
        raise yaml.YAMLError(f"a character that does not exist ({error})") from None
    return node


def values_of(node: yaml.Node, place: Place) -> tuple[Any, dict[str, str]]:
    """The values below a node, and the place of each dotted key.

    Args:
        place: says where a node stands, for messages.

    Raises:
        ConfigError: a key stands twice, a value has no single meaning, or aliases go round in a
            circle or make the document huge.
    """
    values = _Values(place)
    return values.of(node, "", ()), values.lines


class _Values:
    """Turns nodes into values. Attributes: `lines`, dotted key → place."""

    def __init__(self, place: Place):
        self.lines: dict[str, str] = {}
        self._place = place
        self._count = 0

    def of(self, node: yaml.Node, key: str, above: tuple[yaml.Node, ...]) -> Any:
        """The value of `node`, which stands under the dotted `key` and below the nodes `above`."""
        self._count += 1
        if node in above:
            raise self._error(node, f"{key or 'this value'} contains itself, by an alias")
        if len(above) > DEEPEST or self._count > MOST_VALUES:
            raise self._error(node, "too many values, or too deep: aliases of aliases?")
        if node.tag not in ("plain", "quoted"):
            raise self._error(node, f"the tag {node.tag} has no meaning here", "take it out")
        here = (*above, node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key, here)
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                dotted = f"{key}.{index}" if key else str(index)
                self.lines[dotted] = self._place(item)
                items.append(self.of(item, dotted, here))
            return items
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node)

    def _mapping(
        self, node: yaml.MappingNode, key: str, here: tuple[yaml.Node, ...]
    ) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        first: dict[str, yaml.Node] = {}
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                raise self._error(name, "a list or a mapping cannot be a key")
            text = self._text(name)
            if text in first:
                raise self._error(
                    name,
                    f"{f'{key}.' if key else ''}{text} is given twice",
                    f"keep one of the two; the other is at {self._place(first[text])}",
                )
            first[text] = name
            if text == "<<" and name.tag == "plain":
                for mapping in self._merged(value, key, here):
                    merged = {**mapping, **merged}  # of several, the first one counts
                continue
            dotted = f"{key}.{text}" if key else text
            own[text] = self.of(value, dotted, here)
            self.lines[dotted] = self._place(name)
        return {**merged, **own}

    def _merged(
        self, node: yaml.Node, key: str, here: tuple[yaml.Node, ...]
    ) -> Iterator[dict[str, Any]]:
        for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            value = self.of(item, key, here)
            if not isinstance(value, dict):
                raise self._error(item, "<< takes the keys of a mapping, and this is none")
            yield value

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text = self._text(node)
        if node.tag == "quoted":
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _NOT_FINITE.fullmatch(text):
            raise self._error(node, f"{text} is no finite number", "give a number, or unset it")
        if _WHOLE.fullmatch(text):
            if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
                raise self._error(node, f"{text[:30]} is too large a number")
            return int(text)
        if _AMBIGUOUS.fullmatch(text):
            raise self._error(
                node,
                f"{text} is read differently by different readers of YAML",
                "write a number in plain decimal digits, or text in quotes",
            )
        if _DECIMAL.fullmatch(text):
            number = float(text)
            lost = number == 0 and re.search("[1-9]", re.split("[eE]", text)[0])
            if lost or not math.isfinite(number):
                raise self._error(node, f"{text[:30]} is beyond what a number can hold")
            return number
        return text

    def _text(self, node: yaml.ScalarNode) -> str:
        """The text of a scalar, if it can be stored and passed to the system."""
        text = str(node.value)
        if "\0" in text:
            raise self._error(node, "a text with a null character")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self._error(node, "a text with half a character (a lone surrogate)") from None
        return text

    def _error(self, node: yaml.Node, what: str, remedy: str | None = None) -> ConfigError:
        return ConfigError(what, where=self._place(node), remedy=remedy)
