"""Our own schema, as JSON or a parquet row: the fields of `Comparison`."""

from __future__ import annotations

from difflib import get_close_matches

from alignment.config.intake import IntakeConfig
from alignment.preferences.readers.format import Format, Keys, Row, label, producer, text, turns
from alignment.preferences.rows import Draft, Found, RowError

FIELDS = frozenset(
    {
        "id",
        "conversation",
        "chosen",
        "rejected",
        "strength",
        "domain",
        "safety_bin",
        "chosen_by",
        "rejected_by",
        "annotator",
        "group",
        "votes",
        "category",
    }
)


def _read(row: Row, config: IntakeConfig, _keys: Keys) -> list[Found]:
    if not FIELDS.issuperset(row):
        # A misspelt field would quietly lose its meaning: say so instead.
        name = min(set(row) - FIELDS)
        near = get_close_matches(name, FIELDS, n=1)
        raise RowError("unknown_field", name, f"did you mean {near[0]}?" if near else "")
    votes = row.get("votes")
    if votes is not None:
        _check_votes(votes)
    return [
        Draft(
            turns=turns(row.get("conversation"), "conversation"),
            chosen=text(row, "chosen"),
            rejected=text(row, "rejected"),
            strength=label(row, "strength") or config.strength,
            domain=label(row, "domain"),
            safety_bin=label(row, "safety_bin"),
            chosen_by=producer(row.get("chosen_by"), "chosen_by"),
            rejected_by=producer(row.get("rejected_by"), "rejected_by"),
            annotator=label(row, "annotator"),
            group=label(row, "group"),
            votes=votes or None,
            category=label(row, "category"),
        )
    ]


def _check_votes(votes: object) -> None:
    if type(votes) is not list:
        raise RowError("wrong_type", "votes", f"{type(votes).__name__}, not a list")
    for vote in votes:
        if vote not in ("chosen", "rejected", "tie"):
            raise RowError("bad_vote", "votes", repr(vote)[:80])


def _matches(row: Row) -> bool:
    return "conversation" in row and "chosen" in row and "rejected" in row


FORMAT = Format("native", _matches, _read)
