"""Argilla's exports of a pairwise task, with a label or a ranking question.

Flat records (`to_list(flatten=True)`, `to_datasets`) say which responses were submitted. Nested
ones (`to_list`, `to_json`) do not in Argilla 2: they are refused, for drafts and discarded answers
cannot be told from verdicts. Argilla 1.x has a list of responses under each question's name.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from alignment.config.intake import IntakeConfig
from alignment.preferences.readers.format import Format, Row, TaskKeys, expect
from alignment.preferences.readers.verdicts import (
    CHANGED,
    COLUMNS,
    LABELS,
    TASK,
    as_choice,
    draft_from_verdicts,
    find_pair,
    one_side,
    pair_names,
    parse_verdict,
)
from alignment.preferences.rows import DraftOrError, RowError

QUESTIONS = ("preference", "chosen", "choice", "best", "ranking", "comparison")
"""Names of the question that asks for the verdict."""

ASKED = frozenset(f"responses.{name}" for name in LABELS)
ENVELOPE = frozenset({"id", "status", "_server_id", "external_id", "inserted_at", "updated_at"})
RESPONSES = ".responses"
Submitted = dict[str, dict[str, Any]]
"""Question → user → value."""
Response = tuple[str, str, Any, Any]
"""Question, user, status, value."""


def _read(row: Row, config: IntakeConfig, keys: TaskKeys) -> list[DraftOrError]:
    shown, responses = _parts(row)
    if shown.get(TASK) is None and str(row.get("id", "")).startswith("align-"):
        shown[TASK] = row["id"]
    pair = find_pair(shown, keys)
    submitted: Submitted = {}
    discarded = False
    for question, user, status, value in responses:
        if status is None:
            raise RowError("no_status", question, "export with to_list(flatten=True)")
        if status == "submitted":
            submitted.setdefault(question, {})[user] = value
        discarded = discarded or status == "discarded"
    asked_for = _deciding(submitted)
    if not asked_for:
        reason = "no_side" if submitted else "skipped" if discarded else "not_annotated"
        raise RowError(reason, "responses")
    names = pair_names(shown)
    verdicts = []
    question = asked_for[0] if "preference" in asked_for else one_side(asked_for)
    for user, value in submitted[question].items():
        labels = {name: by_user.get(user) for name, by_user in submitted.items()}
        labels[CHANGED] = row.get(CHANGED)
        verdicts.append(parse_verdict(_choice(value, names), None, labels, user))
    return [draft_from_verdicts(pair, verdicts, config)]


def _deciding(questions: Container[str]) -> list[str]:
    """Those of `questions` that may ask for the verdict; `preference` comes first."""
    return [name for name in QUESTIONS if name in questions]


def _parts(row: Row) -> tuple[dict[str, Any], list[Response]]:
    """What annotators saw, and all their responses, submitted or not."""
    if type(row.get("fields")) is dict:
        return _nested(row)
    if any(name.endswith(RESPONSES) for name in row):
        return _flat(row)
    return _first_generation(row)


def _nested(row: Row) -> tuple[dict[str, Any], list[Response]]:
    shown = dict(row["fields"])
    metadata = row.get("metadata")
    if type(metadata) is dict:
        shown = {**metadata, **shown}
    responses: list[Response] = []
    answers = row.get("responses")
    for question, given in ({} if answers is None else expect(dict, answers, "responses")).items():
        responses += _listed(question, given, f"responses.{question}")
    return shown, responses


def _listed(question: str, answers: Any, where: str) -> list[Response]:
    responses = []
    for index, answer in enumerate(expect(list, answers, where)):
        answer = expect(dict, answer, f"{where}.{index}")
        user = str(answer.get("user_id") or f"#{index}")
        responses.append((question, user, answer.get("status"), answer.get("value")))
    return responses


def _flat(row: Row) -> tuple[dict[str, Any], list[Response]]:
    shown = {name: value for name, value in row.items() if RESPONSES not in name}
    responses: list[Response] = []
    for name, values in row.items():
        if not name.endswith(RESPONSES) or values is None:
            continue
        values = expect(list, values, name)
        unnamed = [f"#{index}" for index in range(len(values))]
        users = expect(list, row.get(f"{name}.users") or unnamed, f"{name}.users")
        states = row.get(f"{name}.status") or [None] * len(values)
        states = expect(list, states, f"{name}.status")
        if not len(users) == len(states) == len(values):
            raise RowError("bad_vote", name, "users, status and values differ in number")
        question = name.removesuffix(RESPONSES)
        for user, state, value in zip(users, states, values, strict=True):
            responses.append((question, str(user), state, value))
    return shown, responses


def _first_generation(row: Row) -> tuple[dict[str, Any], list[Response]]:
    shown: dict[str, Any] = {}
    responses: list[Response] = []
    for name, value in row.items():
        if _is_responses(value):
            responses += _listed(name, value, name)
        elif value != [] or name not in QUESTIONS:
            shown[name] = value
    return shown, responses


def _is_responses(value: Any) -> bool:
    return (
        type(value) is list
        and bool(value)
        and all(type(entry) is dict and {"user_id", "value"} <= entry.keys() for entry in value)
    )


def _choice(value: Any, names: tuple[str, str] | None) -> str:
    """A label, or a ranking: ["response-2", "response-1"], or [{"value", "rank"}, …]."""
    if type(value) is dict and type(value.get("value")) is list:  # Argilla 1.x
        ranks = value.get("rank")
        if type(ranks) is not list or len(ranks) != len(value["value"]):
            raise RowError("bad_vote", "ranking", repr(value)[:80])
        pairs = zip(ranks, value["value"], strict=True)
        value = [{"rank": rank, "value": name} for rank, name in pairs]
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
    if any(name.endswith(RESPONSES) for name in row):
        return True
    return is_first_generation(row)


def is_first_generation(row: Row) -> bool:
    """Whether a row is one of Argilla 1.x: responses, or a suggestion, beside the question."""
    return any(_is_responses(row.get(name)) or f"{name}-suggestion" in row for name in QUESTIONS)


def _shown(row: Row) -> Row:
    """The fields and metadata of the record, and responses to questions that are none of ours."""
    try:
        shown, responses = _parts(row)
    except RowError:  # `read` says so
        return {}
    questions = {question for question, *_ in responses}
    others = questions.difference(_deciding(questions)[:1])
    return {**shown, **{f"responses.{question}": True for question in others}}


FORMAT = Format("argilla", _matches, _read, COLUMNS | ENVELOPE | ASKED, _shown)
