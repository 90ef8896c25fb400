"""The plain JSON lines of `align annotate export`, completed by a person or a program.

The fields are `preference` (answer1, answer2 or tie), `strength`, `safety1`, `safety2` and
`annotator`. Label Studio's JSON-MIN export of our tasks has the same fields.
"""

from __future__ import annotations

from alignment.config.intake import IntakeConfig
from alignment.preferences.readers.format import Format, Row, TaskKeys, label
from alignment.preferences.readers.verdicts import (
    TASK,
    draft_from_verdicts,
    find_pair,
    pair_names,
    parse_verdict,
)
from alignment.preferences.rows import DraftOrError, RowError


def _read(row: Row, config: IntakeConfig, keys: TaskKeys) -> list[DraftOrError]:
    pair = find_pair(row, keys)
    preference = row.get("preference")
    if type(preference) is dict:  # {"selected": "left"}
        preference = preference.get("selected")
    if preference is None or preference == "":
        raise RowError("not_annotated", "preference")
    verdict = parse_verdict(preference, pair_names(row), row, label(row, "annotator"))
    return [draft_from_verdicts(pair, [verdict], config)]


def _matches(row: Row) -> bool:
    return "preference" in row and (TASK in row or pair_names(row) is not None)


FORMAT = Format("annotated", _matches, _read)
