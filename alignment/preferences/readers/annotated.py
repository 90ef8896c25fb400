"""The plain JSON lines of `align annotate export`, completed by a person or a program.

The fields are `preference` (answer1, answer2 or tie), `strength`, `safety1`, `safety2` and
`annotator`. Label Studio's JSON-MIN export of our tasks has the same fields, one row a person; a
question of any other name that picks a side (`<Pairwise>`) counts too.
"""

from __future__ import annotations

from typing import Any

from alignment.config.intake import IntakeConfig
from alignment.preferences.readers.argilla import is_first_generation
from alignment.preferences.readers.format import Format, Row, TaskKeys, label
from alignment.preferences.readers.judged import AnnotatedPair, AnnotatorVerdict
from alignment.preferences.readers.verdicts import (
    COLUMNS,
    LABELS,
    TASK,
    draft_from_verdicts,
    find_pair,
    pair_names,
    parse_verdict,
)
from alignment.preferences.rows import DraftOrError, RowError

ENVELOPE = frozenset(
    {"id", "annotation_id", "created_at", "updated_at", "lead_time", "annotator", "task_id"}
)
"""What JSON-MIN says about the annotation itself."""


def _read(row: Row, config: IntakeConfig, keys: TaskKeys) -> list[DraftOrError]:
    pair, verdict = _verdict(row, keys)
    return [draft_from_verdicts(pair, [verdict], config)]


def _verdict(row: Row, keys: TaskKeys) -> tuple[AnnotatedPair, AnnotatorVerdict]:
    pair = find_pair(row, keys)
    preference = row.get(_question(row))
    if preference is None or preference in ("", [], {}):
        labelled = any(row.get(name) not in (None, "", []) for name in LABELS)
        raise RowError("no_side" if labelled else "not_annotated", "preference")
    return pair, parse_verdict(preference, pair_names(row), row, label(row, "annotator"))


def _question(row: Row) -> str:
    """The column that holds the choice."""
    sides = [name for name, value in row.items() if _is_side(value)]
    return "preference" if "preference" in row or not sides else sides[0]


def _is_side(value: Any) -> bool:
    if type(value) is list and len(value) == 1:
        value = value[0]
    return type(value) is dict and "selected" in value


def _matches(row: Row) -> bool:
    if TASK not in row and pair_names(row) is None:
        return False
    if is_first_generation(row):
        return False
    return "preference" in row or _is_side(row.get(_question(row)))


def _shown(row: Row) -> Row:
    question = _question(row)
    return {name: value for name, value in row.items() if name != question}


FORMAT = Format("annotated", _matches, _read, COLUMNS | LABELS | ENVELOPE, _shown, _verdict)
