"""WebGPT comparisons: a question, two answers, two scores; the gap of scores is the strength."""

from __future__ import annotations

from typing import Any

from alignment.config.intake import IntakeConfig
from alignment.config.thresholds import SLACK, strength_of
from alignment.preferences.readers import asked
from alignment.preferences.readers.format import (
    SHARED,
    Format,
    Row,
    TaskKeys,
    draft,
    text,
)
from alignment.preferences.readers.scores import score
from alignment.preferences.rows import DraftOrError, RowError


def _read(row: Row, config: IntakeConfig, _keys: TaskKeys) -> list[DraftOrError]:
    question: Any = row.get("question")
    if type(question) is dict:  # the original release
        row = {**row, "question": question.get("full_text")}
    conversation = asked.conversation(row)
    answers = text(row, "answer_0").strip(), text(row, "answer_1").strip()
    gap = _score(row, "score_0") - _score(row, "score_1")
    if gap == 0:
        return [RowError("tie", "score_0")]
    answers = answers if gap > 0 else answers[::-1]
    strength = strength_of(abs(gap) + SLACK, config.score_gaps)
    return [draft(row, conversation, answers, strength)]


def _score(row: Row, name: str) -> float:
    found = score(row, name)
    if found is None:
        raise RowError("missing_field", name)
    return found


def _matches(row: Row) -> bool:
    return {"question", *_COLUMNS} <= row.keys()


_COLUMNS = frozenset({"answer_0", "answer_1", "score_0", "score_1"})
FORMAT = Format("webgpt", _matches, _read, SHARED | asked.COLUMNS | _COLUMNS)
