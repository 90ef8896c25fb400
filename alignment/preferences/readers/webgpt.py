"""WebGPT comparisons: a question, two answers, two scores; the gap of scores is the strength."""

from __future__ import annotations

from typing import Any

from alignment.config.intake import IntakeConfig
from alignment.config.thresholds import SLACK, strength_of
from alignment.preferences.readers.format import Format, Row, TaskKeys, draft, number, text
from alignment.preferences.rows import DraftOrError, RowError


def _read(row: Row, config: IntakeConfig, _keys: TaskKeys) -> list[DraftOrError]:
    question: Any = row.get("question")
    if type(question) is dict:  # the original release
        question = question.get("full_text")
    if type(question) is not str:
        if question is None:
            raise RowError("missing_prompt", "question")
        raise RowError("wrong_type", "question", f"{type(question).__name__}, not text")
    answers = text(row, "answer_0").strip(), text(row, "answer_1").strip()
    gap = _score(row, "score_0") - _score(row, "score_1")
    if gap == 0:
        return [RowError("tie", "score_0")]
    answers = answers if gap > 0 else answers[::-1]
    strength = strength_of(abs(gap) + SLACK, config.score_gaps)
    return [draft(row, [("user", question.strip())], answers, strength)]


def _score(row: Row, name: str) -> float:
    value = row.get(name)
    if value is None:
        raise RowError("missing_field", name)
    score = number(value)
    if score is None:
        raise RowError("wrong_type", name, f"{type(value).__name__}, no finite number")
    return score


def _matches(row: Row) -> bool:
    return {"question", "answer_0", "answer_1", "score_0", "score_1"} <= row.keys()


FORMAT = Format("webgpt", _matches, _read)
