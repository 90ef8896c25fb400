"""The base of every config section, sections that override others, and tables of fixed words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    ValidationInfo,
    field_validator,
)


class Section(BaseModel):
    """A part of a program's YAML: unknown keys are errors, values never change after loading.

    Where a number is wanted, neither text nor `true` is taken for one, and no infinity.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _numbers(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        kinds = set(_kinds(cls.model_fields[info.field_name].annotation))
        if kinds & {int, float} and not kinds & {Any, Section}:
            for given in _leaves(value):
                if isinstance(given, bool) and bool not in kinds:
                    raise ValueError(f"a number is wanted, not {str(given).lower()}")
                if isinstance(given, str) and not kinds & {str, Path}:
                    raise ValueError(f"a number is wanted, not the text {given!r}")
        return value


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types that values of a field may have, within lists and tables too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield Section
    elif get_origin(annotation) is Literal:
        yield from map(type, get_args(annotation))
    elif inner := get_args(annotation):
        for part in inner[1:] if get_origin(annotation) is dict else inner:
            yield from _kinds(part)
    else:
        yield annotation


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


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
