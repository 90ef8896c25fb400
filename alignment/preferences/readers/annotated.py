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
    one_side,
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
    sides = _sides(row)
    preference = row.get(one_side(sides) if sides else "preference")
    if preference is None or preference in ("", [], {}):
        labelled = any(row.get(name) not in (None, "", []) for name in LABELS)
        raise RowError("no_side" if labelled else "not_annotated", "preference")
    return pair, parse_verdict(preference, pair_names(row), row, label(row, "annotator"))


def _sides(row: Row) -> list[str]:
    """Columns that pick a side, where none is called `preference`."""
    return [] if "preference" in row else [name for name in row if _is_side(row[name])]


def _is_side(value: Any) -> bool:
    if type(value) is list and len(value) == 1:
        value = value[0]
    return type(value) is dict and "selected" in value


def _matches(row: Row) -> bool:
    if TASK not in row and pair_names(row) is None:
        return False
    if is_first_generation(row):
        return False
    return "preference" in row or bool(_sides(row))


def _shown(row: Row) -> Row:
    sides = _sides(row)
    return {name: value for name, value in row.items() if name not in sides}


READ = COLUMNS | LABELS | ENVELOPE | {"preference"}
FORMAT = Format("annotated", _matches, _read, READ, _shown, _verdict)
