"""Formats of preference data. Each module reads one shape of row and knows nothing about files.

Detection, `--format`, intake, quarantine and reports follow from `FORMATS`. How to add a format:
CONTRIBUTING.md.
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
from alignment.preferences.readers.format import Format, TaskKeys
from alignment.preferences.sources import ACCEPTED_FILES

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
"""Most specific first: an HH row also matches TRL's format, never the other way round."""

KNOWN = {
    "hh": "chosen, rejected: transcripts",
    "trl": "prompt, chosen, rejected",
    "webgpt": "question, answer_0, answer_1, score_0, score_1",
    "pandalm": "instruction, response1, response2, annotator1 …",
    "ranking": "prompt, responses, ranks",
    "label-studio": "data, annotations",
    "argilla": "fields, responses",
    "annotated": "answer1, answer2, preference",
    "native": "conversation, chosen, rejected, domain",
}
"""Format → the columns that it is known by, for messages."""
SCHEMA = "docs/intake.md"
"""Where the formats and the fields of our own schema are described."""


def named(name: str) -> Format:
    """The format called `name`.

    Raises:
        DataError: there is no such format.
    """
    for candidate in FORMATS:
        if candidate.name == name:
            return candidate
    names = ", ".join(candidate.name for candidate in FORMATS)
    raise DataError(f"no format {name!r}", where="--format", remedy=f"one of: {names}")


def choose(sample: Sequence[dict[str, Any]], where: str) -> Format:
    """The format that matches most of a file's first rows.

    Args:
        sample: the first rows.
        where: name of the file, for messages.

    Raises:
        DataError: no row matches any format.
    """
    counts = {candidate.name: 0 for candidate in FORMATS}
    for row in sample:
        for candidate in FORMATS:
            if candidate.matches(row):
                counts[candidate.name] += 1
                break
    best = max(FORMATS, key=lambda candidate: counts[candidate.name])
    known = ", ".join(f"{name} ({columns})" for name, columns in KNOWN.items())
    if not sample:
        raise DataError(
            "the format is not known: none of the first rows is a JSON object",
            where=where,
            remedy=f"{ACCEPTED_FILES}; known formats: {known}; see {SCHEMA}",
        )
    if counts[best.name] == 0:
        keys = ", ".join(sorted(sample[0])[:12])
        raise DataError(
            f"the format is not known; the first row has: {keys}",
            where=where,
            remedy=f"convert the file to one of: {known}; --format forces one; see {SCHEMA}",
        )
    return best


__all__ = ["FORMATS", "Format", "TaskKeys", "choose", "named"]
