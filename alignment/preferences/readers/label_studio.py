"""Label Studio's JSON export of a pairwise task (`<Pairwise>`, and `<Choices>` for the rest)."""

from __future__ import annotations

from typing import Any

from alignment.config.intake import IntakeConfig
from alignment.preferences.readers.format import Format, Row, TaskKeys, empty
from alignment.preferences.readers.verdicts import (
    COLUMNS,
    LABELS,
    SIDELESS,
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
    skipped = sideless = 0
    for annotation in annotations:
        if type(annotation) is not dict:
            raise RowError("wrong_type", "annotations", f"{type(annotation).__name__}")
        if annotation.get("was_cancelled"):  # "skip" in the tool
            skipped += 1
            continue
        said = _said(annotation)
        if "preference" in said:
            verdicts.append(parse_verdict(said["preference"], None, said, _person(annotation)))
        elif said:
            sideless += 1
    if not verdicts and sideless + skipped:
        raise RowError("no_side" if sideless else "skipped", "annotations")
    draft = draft_from_verdicts(pair, verdicts, config)
    draft.notes += (SIDELESS,) * sideless
    return [draft]


def _said(annotation: dict[str, Any]) -> dict[str, Any]:
    """Question → answer. `preference` is the side of a `<Pairwise>`, whatever its name, or the
    choice of that name."""
    said: dict[str, Any] = {}
    results = annotation.get("result")
    if type(results) is not list:
        raise RowError("wrong_type", "annotations.result", f"{type(results).__name__}, not a list")
    for result in results:
        value = result.get("value") if type(result) is dict else None
        if type(value) is not dict:
            raise RowError("bad_vote", "annotations.result.value")
        name = str(result.get("from_name"))
        if not empty(value.get("selected")):
            said["preference"] = value["selected"]
        elif not empty(value.get("choices")):
            said.setdefault(name, value["choices"])
        else:
            said.setdefault(f"result.{name}", next(iter(value.values()), None))
    return {name: value for name, value in said.items() if not empty(value)}


def _person(annotation: dict[str, Any]) -> str | None:
    """E-mail address where the export has one, else the tool's number of the person."""
    value = annotation.get("completed_by")
    name = annotation.get("created_username")  # " ana@example.org, 1"
    if type(name) is str and name.strip():
        return name.rpartition(",")[0].strip() or name.strip()
    if type(value) is dict:
        value = value.get("email") or value.get("id")
    return None if value is None else str(value)


def _shown(row: Row) -> Row:
    """The task's data, and the answers to questions that are none of ours."""
    shown, annotations = row.get("data"), row.get("annotations")
    columns: dict[str, Any] = dict(shown) if type(shown) is dict else {}
    for annotation in annotations if type(annotations) is list else []:
        if type(annotation) is dict and type(annotation.get("result")) is list:
            try:
                columns |= _said(annotation)
            except RowError:  # `read` says so
                continue
    return columns


def _matches(row: Row) -> bool:
    return "annotations" in row and "data" in row


FORMAT = Format("label-studio", _matches, _read, COLUMNS | LABELS | {"preference"}, _shown)
