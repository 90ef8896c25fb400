"""The format number in every record of a workspace, and how records of other formats are read.

A record without a number was written by 0.1 (format 1). `alignment.pipeline.migrate` translates
older records as they are read and rewrites none; a newer record is refused, and the error names the
release that wrote it.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from alignment import __version__
from alignment.errors import AlignError, DamagedError
from alignment.utils.files import RESTORE, read_object

T = TypeVar("T")

FORMAT = 2
OLD_NAMES = 1  # the last format whose settings have the names of 0.1 (`alignment.config.renames`)


def as_record(values: Any) -> dict[str, Any]:
    """A dataclass or a mapping as it is written, with the format number and the release."""
    plain = dict(values) if isinstance(values, Mapping) else asdict(values)
    return {"format": FORMAT, "written_by": __version__, **plain}


def read_record(path: Path, remedy: str = RESTORE) -> dict[str, Any]:
    """The values of a record, with the number of its format under `format`.

    Raises:
        AlignError: a newer release wrote it.
        DamagedError: it is not a record.
    """
    values = read_object(path, remedy)
    number, writer = values.setdefault("format", 1), values.pop("written_by", "0.1")
    if type(number) is not int or number < 1:
        raise DamagedError(f"{number!r} is no format number", where=str(path), remedy=remedy)
    if number > FORMAT:
        raise AlignError(
            f"align {writer} wrote this in format {number}; this release reads up to {FORMAT}",
            where=str(path),
            remedy=f"use align {writer} or newer with this workspace",
        )
    return values


def read_as(kind: type[T], path: Path, remedy: str = RESTORE) -> T:
    """A record as an instance of the dataclass `kind`; fields of later writers are passed over.

    Raises:
        AlignError: a newer release wrote it.
        DamagedError: it is not a record, or a field is missing or of another type.
    """
    values = read_record(path, remedy)
    try:
        record: T = _adapter(cast(Hashable, kind)).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise DamagedError(
            f"the record is damaged: {field}: {first['msg']}", where=str(path), remedy=remedy
        ) from None
    return record


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
