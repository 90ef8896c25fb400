"""The plain JSON lines of `align annotate export`, filled in by a person or a program:
`preference` (answer1, answer2 or tie), `strength`, `safety1`, `safety2`, `annotator`. Label
Studio's JSON-MIN export of our tasks has the same fields."""

from __future__ import annotations

from alignment.config.intake import IntakeConfig
from alignment.preferences.readers.format import Format, Keys, Row, label
from alignment.preferences.readers.judged import (
    TASK,
    Verdict,
    as_choice,
    as_safe,
    as_strength,
    decide,
    find_pair,
    pair_names,
)
from alignment.preferences.rows import Found, RowError


def _read(row: Row, config: IntakeConfig, keys: Keys) -> list[Found]:
    pair = find_pair(row, keys)
    preference = row.get("preference")
    if type(preference) is dict:  # {"selected": "left"}
        preference = preference.get("selected")
    if preference is None or preference == "":
        raise RowError("not_annotated", "preference")
    verdict = Verdict(
        choice=as_choice(preference, pair_names(row)),
        strength=as_strength(row.get("strength")),
        safe=(as_safe(row.get("safety1")), as_safe(row.get("safety2"))),
        annotator=label(row, "annotator"),
    )
    return [decide(pair, [verdict], config)]


def _matches(row: Row) -> bool:
    return "preference" in row and (TASK in row or pair_names(row) is not None)


FORMAT = Format("annotated", _matches, _read)
