"""Argilla's exports of a pairwise task: nested records (`to_list`, `to_json`) and flat ones
(`to_list(flatten=True)`, `to_datasets`), with a label or a ranking question."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignment.config.intake import IntakeConfig
from alignment.preferences.readers.format import Format, Row, TaskKeys
from alignment.preferences.readers.verdicts import (
    TASK,
    as_choice,
    draft_from_verdicts,
    find_pair,
    pair_names,
    parse_verdict,
)
from alignment.preferences.rows import DraftOrError, RowError

QUESTIONS = ("preference", "chosen", "choice", "best", "ranking", "comparison")
"""Names of the question that asks for the verdict; the first one present counts."""

Submitted = dict[str, dict[str, Any]]
"""Question → user → value."""


def _read(row: Row, config: IntakeConfig, keys: TaskKeys) -> list[DraftOrError]:
    shown, submitted = _nested(row) if type(row.get("fields")) is dict else _flat(row)
    if shown.get(TASK) is None and str(row.get("id", "")).startswith("align-"):
        shown[TASK] = row["id"]
    pair = find_pair(shown, keys)
    question = next((name for name in QUESTIONS if name in submitted), None)
    if question is None:
        raise RowError("not_annotated", "responses")
    names = pair_names(shown)
    verdicts = []
    for user, value in submitted[question].items():
        labels = {name: by_user.get(user) for name, by_user in submitted.items()}
        verdicts.append(parse_verdict(_choice(value, names), None, labels, user))
    return [draft_from_verdicts(pair, verdicts, config)]


def _nested(row: Row) -> tuple[dict[str, Any], Submitted]:
    shown = dict(row["fields"])
    metadata = row.get("metadata")
    if type(metadata) is dict:
        shown = {**metadata, **shown}
    responses = row.get("responses")
    if responses is None:
        return shown, {}
    if type(responses) is not dict:
        raise RowError("wrong_type", "responses", f"{type(responses).__name__}, not an object")
    submitted: Submitted = {}
    for question, answers in responses.items():
        if type(answers) is not list:
            raise RowError("wrong_type", f"responses.{question}", "not a list")
        for index, answer in enumerate(answers):
            if type(answer) is not dict:
                raise RowError("wrong_type", f"responses.{question}.{index}", "not an object")
            if answer.get("status") in (None, "submitted"):
                user = str(answer.get("user_id") or f"#{index}")
                submitted.setdefault(question, {})[user] = answer.get("value")
    return shown, submitted


def _flat(row: Row) -> tuple[dict[str, Any], Submitted]:
    shown = {name: value for name, value in row.items() if ".responses" not in name}
    submitted: Submitted = {}
    for name, values in row.items():
        if not name.endswith(".responses") or values is None:
            continue
        question = name.removesuffix(".responses")
        if type(values) is not list:
            raise RowError("wrong_type", name, f"{type(values).__name__}, not a list")
        users = row.get(f"{name}.users") or [f"#{index}" for index in range(len(values))]
        states = row.get(f"{name}.status") or [None] * len(values)
        for suffix, column in (("users", users), ("status", states)):
            if type(column) is not list:
                raise RowError("wrong_type", f"{name}.{suffix}", f"{type(column).__name__}")
        if not len(users) == len(states) == len(values):
            raise RowError("bad_vote", name, "users, status and values differ in number")
        for user, state, value in zip(users, states, values, strict=True):
            if state in (None, "submitted"):
                submitted.setdefault(question, {})[str(user)] = value
    return shown, submitted


def _choice(value: Any, names: tuple[str, str] | None) -> str:
    """A label, or a ranking: ["response-2", "response-1"], or [{"value", "rank"}, …]."""
    if type(value) is not list:
        return as_choice(value, names)
    if value and all(type(entry) is dict for entry in value):
        ranked = [(entry.get("rank"), entry.get("value")) for entry in value]
        if len(ranked) != 2 or any(type(rank) is not int for rank, _ in ranked):
            raise RowError("bad_vote", "ranking", repr(value)[:80])
        if ranked[0][0] == ranked[1][0]:
            return "tie"
        return as_choice(min(ranked, key=lambda entry: entry[0])[1], names)
    if len(value) != 2:
        raise RowError("bad_vote", "ranking", repr(value)[:80])
    return as_choice(value[0], names)


def _matches(row: Row) -> bool:
    if type(row.get("fields")) is dict and "responses" in row:
        return True
    names: Mapping[str, Any] = row
    return any(name.endswith(".responses") for name in names)


FORMAT = Format("argilla", _matches, _read)
