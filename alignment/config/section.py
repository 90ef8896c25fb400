"""The base of every config section, sections that override others, and tables of fixed words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer


class Section(BaseModel):
    """A part of a program's YAML: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


S = TypeVar("S", bound=Section)


class Overriding:
    """Mark of a field whose section overrides another: what it does not name, the other says."""


def _only_named(section: Section) -> dict[str, Any]:
    return section.model_dump(mode="json", exclude_unset=True)


Override = Annotated[S, PlainSerializer(_only_named), Overriding]
"""A section of which only the keys that are named count. It is written down as it was given;
`alignment.config.effective` fills it up."""


def table(defaults: Mapping[str, float]) -> BeforeValidator:
    """For a field that is a table of fixed words: what is not named has its default.

    Words keep the order of `defaults`, however they are given.
    """

    def filled(given: Any) -> Any:
        return {**defaults, **given} if isinstance(given, Mapping) else given

    return BeforeValidator(filled)


def over(base: S, override: S) -> S:
    """`override` with everything it does not name taken from `base`; sections within likewise."""
    named: dict[str, Any] = {}
    for name in type(override).model_fields:
        value, own = getattr(base, name), name in override.model_fields_set
        if own:
            given = getattr(override, name)
            both = isinstance(given, Section) and type(given) is type(value)
            value = over(value, given) if both else given
        named[name] = value
    return override.model_copy(update=named)
