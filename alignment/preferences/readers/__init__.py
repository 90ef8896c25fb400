"""Formats of preference data. Each module knows one shape of row and nothing of files.

A format is a `Format`: its name, whether a row looks like it, and what comparisons a row stands
for. `choose` finds the format of a file from its first rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignment.errors import DataError
from alignment.preferences.readers import (
    annotated,
    argilla,
    hh,
    label_studio,
    native,
    pandalm,
    ranking,
    trl,
    webgpt,
)
from alignment.preferences.readers.format import Format, Keys

FORMATS: tuple[Format, ...] = (
    native.FORMAT,
    annotated.FORMAT,
    ranking.FORMAT,
    hh.FORMAT,
    webgpt.FORMAT,
    pandalm.FORMAT,
    label_studio.FORMAT,
    argilla.FORMAT,
    trl.FORMAT,
)
"""Most telling first: a row of HH would pass for TRL's, never the other way round."""


def named(name: str) -> Format:
    """The format called `name`.

    Raises:
        DataError: there is none.
    """
    for known in FORMATS:
        if known.name == name:
            return known
    names = ", ".join(known.name for known in FORMATS)
    raise DataError(f"no format {name!r}", where="--format", remedy=f"one of: {names}")


def choose(sample: Sequence[dict[str, Any]], where: str) -> Format:
    """The format that most of a file's first rows look like.

    Raises:
        DataError: no row looks like any format.
    """
    counts = {known.name: 0 for known in FORMATS}
    for row in sample:
        for known in FORMATS:
            if known.matches(row):
                counts[known.name] += 1
                break
    best = max(FORMATS, key=lambda known: counts[known.name])
    if not sample:
        raise DataError(
            "the format is not known: none of the first rows is a JSON object",
            where=where,
            remedy="send JSON lines (gzip may be), a JSON array or parquet, text in UTF-8",
        )
    if counts[best.name] == 0:
        keys = ", ".join(sorted(sample[0])[:12])
        raise DataError(
            f"the format is not known; the first row has: {keys}",
            where=where,
            remedy="name it with --format (intake.format), or convert the file",
        )
    return best


__all__ = ["FORMATS", "Format", "Keys", "choose", "named"]
