"""Label Studio's JSON export of a pairwise task (`<Pairwise>`, and `<Choices>` for the rest)."""

from __future__ import annotations

from typing import Any

from alignment.config.intake import IntakeConfig
from alignment.preferences.readers.format import Format, Row, TaskKeys
from alignment.preferences.readers.verdicts import (
    AnnotatorVerdict,
    draft_from_verdicts,
    find_pair,
    parse_verdict,
)
from alignment.preferences.rows import DraftOrError, RowError


def _read(row: Row, config: IntakeConfig, keys: TaskKeys) -> list[DraftOrError]:
    shown, annotations = row.get("data"), row.get("annotations")
    if type(shown) is not dict:
        raise RowError("wrong_type", "data", f"{type(shown).__name__}, not an object")
    if type(annotations) is not list:
        raise RowError("wrong_type", "annotations", f"{type(annotations).__name__}, not a list")
    pair = find_pair(shown, keys)
    verdicts = []
    for annotation in annotations:
        if type(annotation) is not dict:
            raise RowError("wrong_type", "annotations", f"{type(annotation).__name__}")
        if not annotation.get("was_cancelled"):  # "skip" in the tool
            verdict = _verdict(annotation)
            if verdict is not None:
                verdicts.append(verdict)
    return [draft_from_verdicts(pair, verdicts, config)]


def _verdict(annotation: dict[str, Any]) -> AnnotatorVerdict | None:
    choices: dict[str, Any] = {}
    preference: Any = None
    results = annotation.get("result")
    if type(results) is not list:
        raise RowError("wrong_type", "annotations.result", f"{type(results).__name__}, not a list")
    for result in results:
        value = result.get("value") if type(result) is dict else None
        if type(value) is not dict:
            raise RowError("bad_vote", "annotations.result.value")
        if "selected" in value:
            preference = value["selected"]
        elif type(value.get("choices")) is list and value["choices"]:
            choices[str(result.get("from_name"))] = value["choices"][0]
    if preference is None:
        preference = choices.get("preference")
    if preference is None:
        return None
    return parse_verdict(preference, None, choices, _person(annotation.get("completed_by")))


def _person(value: Any) -> str | None:
    if type(value) is dict:
        value = value.get("email") or value.get("id")
    return None if value is None else str(value)


def _matches(row: Row) -> bool:
    return "annotations" in row and "data" in row


FORMAT = Format("label-studio", _matches, _read)
