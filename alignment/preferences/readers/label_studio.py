"""Label Studio's JSON export of a pairwise task (`<Pairwise>`, and `<Choices>` for the rest)."""

from __future__ import annotations

from typing import Any

from alignment.config.intake import IntakeConfig
from alignment.preferences.readers.format import Format, Row, TaskKeys, empty, expect
from alignment.preferences.readers.verdicts import (
    CHANGED,
    COLUMNS,
    LABELS,
    SIDELESS,
    draft_from_verdicts,
    find_pair,
    one_side,
    parse_verdict,
)
from alignment.preferences.rows import DraftOrError, RowError


def _read(row: Row, config: IntakeConfig, keys: TaskKeys) -> list[DraftOrError]:
    pair = find_pair(expect(dict, row.get("data"), "data"), keys)
    verdicts = []
    skipped = sideless = 0
    for annotation in expect(list, row.get("annotations"), "annotations"):
        annotation = expect(dict, annotation, "annotations")
        if annotation.get("was_cancelled"):  # "skip" in the tool
            skipped += 1
            continue
        said = _said(annotation)
        if "preference" in said:
            labels = {**said, CHANGED: annotation.get(CHANGED) or annotation.get("created_at")}
            verdicts.append(parse_verdict(said["preference"], None, labels, _person(annotation)))
        elif said:
            sideless += 1
    if not verdicts and sideless + skipped:
        raise RowError("no_side" if sideless else "skipped", "annotations")
    draft = draft_from_verdicts(pair, verdicts, config)
    draft.notes += (SIDELESS,) * sideless
    return [draft]


def _said(annotation: dict[str, Any]) -> dict[str, Any]:
    """Question → answer. `preference` is the question of that name, else the one `<Pairwise>`.

    Raises:
        RowError: several questions pick a side and none is called `preference`, or one question has
            two answers.
    """
    said: dict[str, Any] = {}
    sides: list[str] = []
    for result in expect(list, annotation.get("result"), "annotations.result"):
        value = result.get("value") if type(result) is dict else None
        if type(value) is not dict:
            raise RowError("bad_vote", "annotations.result.value")
        name = str(result.get("from_name"))
        answer = value.get("selected") or value.get("choices")
        if empty(answer):
            said.setdefault(f"result.{name}", next(iter(value.values()), None))
        elif said.setdefault(name, answer) != answer:
            raise RowError("bad_vote", name, f"{said[name]!r} and {answer!r}"[:80])
        elif not empty(value.get("selected")):
            sides.append(name)
    if sides and "preference" not in said:
        said["preference"] = said.pop(one_side(sides))
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
