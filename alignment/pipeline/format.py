"""The format number in every record of a workspace, and how records of other formats are read.

A record without a number was written by 0.1 (format 1). `alignment.pipeline.migrate` translates
older records as they are read and rewrites none; a newer record is refused, and the error names the
release that wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from alignment import __version__
from alignment.errors import AlignError
from alignment.utils.files import read_json

FORMAT = 2
OLD_NAMES = 1  # the last format whose settings have the names of 0.1 (`alignment.config.renames`)


def as_record(values: Any) -> dict[str, Any]:
    """A dataclass or a mapping as it is written, with the format number and the release."""
    plain = dict(values) if isinstance(values, Mapping) else asdict(values)
    return {"format": FORMAT, "written_by": __version__, **plain}


def read_record(path: Path) -> dict[str, Any]:
    """The values of a record, with the number of its format under `format`.

    Raises:
        AlignError: a newer release wrote it.
        ValueError: it is not a JSON object.
    """
    values = read_json(path)
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    number, writer = values.setdefault("format", 1), values.pop("written_by", "0.1")
    if number > FORMAT:
        raise AlignError(
            f"align {writer} wrote this in format {number}; this release reads up to {FORMAT}",
            where=str(path),
            remedy=f"use align {writer} or newer with this workspace",
        )
    return values


def known_fields(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `values` that are fields of the dataclass `kind`; later fields are dropped."""
    names = {item.name for item in fields(kind)}
    return {name: value for name, value in values.items() if name in names}
