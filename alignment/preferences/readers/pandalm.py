"""PandaLM's test set: an instruction, two responses, and a verdict of each annotator."""

from __future__ import annotations

import re

from alignment.config.intake import IntakeConfig
from alignment.preferences.readers import asked
from alignment.preferences.readers.format import Format, Row, TaskKeys, category, label, text
from alignment.preferences.readers.verdicts import majority
from alignment.preferences.rows import Draft, DraftOrError, RowError

_ANNOTATOR = re.compile(r"annotator(\d+)")
_VERDICT = {0: "tie", 1: "first", 2: "second"}


def _read(row: Row, config: IntakeConfig, _keys: TaskKeys) -> list[DraftOrError]:
    conversation = asked.conversation(row)
    answers = text(row, "response1").strip(), text(row, "response2").strip()
    people = [(name, _vote(row, name)) for name in sorted(filter(_ANNOTATOR.fullmatch, row))]
    first, strength, winner_votes = majority(people, config.agreement)
    chosen, rejected = answers if first else answers[::-1]
    return [
        Draft(
            turns=conversation,
            chosen=chosen,
            rejected=rejected,
            strength=strength,
            domain=label(row, "domain"),
            votes=winner_votes,
            people=people,
            category=category(row, "motivation_app"),
        )
    ]


def _vote(row: Row, name: str) -> str:
    value = row[name]
    if type(value) is not int or value not in _VERDICT:
        raise RowError("bad_vote", name, f"{value!r} is none of 0 (tie), 1, 2"[:80])
    return _VERDICT[value]


def _matches(row: Row) -> bool:
    return {"instruction", "response1", "response2", "annotator1"} <= row.keys()


def _shown(row: Row) -> Row:
    return {name: value for name, value in row.items() if not _ANNOTATOR.fullmatch(name)}


FORMAT = Format(
    "pandalm",
    _matches,
    _read,
    asked.COLUMNS | {"response1", "response2", "domain", "motivation_app"},
    _shown,
)
