"""How many settings there are: few enough to be looked through."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from alignment.config.program import ProgramConfig
from alignment.config.section import Overriding

# 250, and twelve since: the engine of every stage in one place (four), sharding, several machines,
# the reference of PPO, the weights of what a server drew, which papers switch off to compare, and
# whether a version samples for fresh prompts, which those that began without it must do without,
# and the texts that tell whether PPO forgets (two)
MOST = 262


def overrides(field: FieldInfo) -> bool:
    """Whether the field is a section that only says what differs from another."""
    marks = [mark for part in parts(field.annotation) for mark in marks_of(part)]
    return Overriding in [*field.metadata, *marks]


def parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in get_args(annotation):
        yield from parts(argument)


def marks_of(annotation: Any) -> tuple[Any, ...]:
    return tuple(getattr(annotation, "__metadata__", ()))


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = [p for p in parts(field.annotation) if isinstance(p, type)]
        sections = [part for part in inner if issubclass(part, BaseModel)]
        if overrides(field) or not sections:
            yield f"{prefix}{name}"
        for section in [] if overrides(field) else sections:
            yield from leaves(section, f"{prefix}{name}.")


def test_settings_can_be_looked_through() -> None:
    found = list(leaves(ProgramConfig))
    print(f"{len(found)} settings")
    assert len(set(found)) == len(found)
    assert {"finetune.rejection", "finetune.student.size", "sample.generation"} < set(found)
    assert len(found) < MOST
