"""Comparisons that do not count though their batch does: withdrawn, replaced, of blocked people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.preferences.withdrawals import Event, withdrawn
from alignment.utils.files import read_json

if TYPE_CHECKING:
    from alignment.preferences.store import Batch

EXCLUDED = "excluded.json"
"""File among an intake's outputs: batch → rows that do not count. It is missing if all count."""
Excluded = Mapping[str, Mapping[int, str]]
"""Batch → row → why it does not count, in words."""


def exclusions(batches: Sequence[Batch], events: Sequence[Event]) -> dict[str, dict[int, str]]:
    """The rows of all batches that do not count.

    Args:
        batches: of the store, in order.
    """
    blocked = withdrawn(events, "annotator")
    found: dict[str, dict[int, str]] = {batch.id: {} for batch in batches}
    # From the last batch back: a verdict that does not count itself replaces none.
    for batch in reversed(batches):
        mine = found[batch.id]
        mine |= single(batch.id, events)
        if blocked:
            from alignment.preferences.recorded import RecordedVerdicts

            for row, name in RecordedVerdicts.read(batch.directory).without(blocked):
                mine.setdefault(row, blocked[name].in_words())
        if batch.withdrawal is None:
            for target, rows in batch.manifest.get("replaces", {}).items():
                for here, there in rows:
                    if here not in mine and target in found:
                        found[target].setdefault(there, f"judged again in batch {batch.name}")
    comparisons = {
        id: {row: why for row, why in rows.items() if row >= 0} for id, rows in found.items()
    }
    return {id: rows for id, rows in comparisons.items() if rows}


def recorded_exclusions(intakes: Iterable[Path]) -> dict[str, list[int]]:
    """Batch → rows that do not count, by the outputs of several intakes."""
    paths = [directory / EXCLUDED for directory in intakes]
    found = [read_json(path) for path in paths if path.is_file()]
    return {id: rows for excluded in found for id, rows in excluded.items()}


def single(batch: str, events: Sequence[Event]) -> dict[int, str]:
    """Comparisons of a batch that were withdrawn one by one."""
    rows: dict[int, str] = {}
    for event in events:
        if event.kind == "comparison" and event.target == batch:
            for row in event.rows:
                if event.action == "withdrawn":
                    rows[row] = event.in_words()
                else:
                    rows.pop(row, None)
    return rows


def in_words(rows: Mapping[int, str]) -> list[str]:
    """`3 comparisons do not count: judged again in batch 0005-…`, a line on each cause."""
    return [
        f"{count} comparison{'s do' if count > 1 else ' does'} not count: {why}"
        for why, count in sorted(Counter(rows.values()).items())
    ]
