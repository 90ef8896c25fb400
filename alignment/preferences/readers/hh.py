"""Anthropic's HH-RLHF: transcripts `chosen` and `rejected` that differ in their last answer."""

from __future__ import annotations

from alignment.config.intake import IntakeConfig
from alignment.preferences.readers import asked, scores
from alignment.preferences.readers.format import SHARED, Format, Row, TaskKeys, draft, text
from alignment.preferences.readers.transcripts import is_transcript, part, transcript
from alignment.preferences.rows import DraftOrError


def _read(row: Row, config: IntakeConfig, _keys: TaskKeys) -> list[DraftOrError]:
    before, chosen, rejected = part(text(row, "chosen"), text(row, "rejected"))
    found = asked.agreed(asked.asked(row), transcript(before, "chosen"), "chosen")
    conversation = asked.with_system(row, found)
    return [draft(row, conversation, (chosen, rejected), scores.stated_strength(row, config))]


def _matches(row: Row) -> bool:
    return is_transcript(row.get("chosen")) and is_transcript(row.get("rejected"))


FORMAT = Format(
    "hh", _matches, _read, SHARED | asked.COLUMNS | scores.COLUMNS | {"chosen", "rejected"}
)
