"""Our own schema, as JSON or a parquet row: the fields of `Comparison`."""

from __future__ import annotations

from difflib import get_close_matches

from alignment.config.intake import IntakeConfig
from alignment.preferences.readers.format import (
    Format,
    Row,
    TaskKeys,
    draft,
    expect,
    label,
    producer,
    text,
    turns,
)
from alignment.preferences.rows import DraftOrError, RowError
from alignment.preferences.schema import Comparison

FIELDS = frozenset({"id", "corrects", *Comparison.model_fields})


def _read(row: Row, config: IntakeConfig, _keys: TaskKeys) -> list[DraftOrError]:
    if not FIELDS.issuperset(row):
        # A misspelt field must not be ignored silently.
        name = min(set(row) - FIELDS)
        near = get_close_matches(name, FIELDS, n=1)
        raise RowError("unknown_field", name, f"did you mean {near[0]}?" if near else "")
    votes = row.get("votes")
    if votes is not None:
        _check_votes(votes)
    return [
        draft(
            row,
            turns(row.get("conversation"), "conversation"),
            (text(row, "chosen"), text(row, "rejected")),
            label(row, "strength") or config.strength,
            safety_bin=label(row, "safety_bin"),
            chosen_by=producer(row.get("chosen_by"), "chosen_by"),
            rejected_by=producer(row.get("rejected_by"), "rejected_by"),
            group=label(row, "group"),
            votes=votes or None,
        )
    ]


def _check_votes(votes: object) -> None:
    for vote in expect(list, votes, "votes"):
        if vote not in ("chosen", "rejected", "tie"):
            raise RowError("bad_vote", "votes", repr(vote)[:80])


def _matches(row: Row) -> bool:
    return "conversation" in row and "chosen" in row and "rejected" in row


FORMAT = Format("native", _matches, _read, FIELDS)
