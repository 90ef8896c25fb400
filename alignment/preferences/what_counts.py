"""What counts of the store's batches now, and what of a version's was taken back.

Comparisons that were withdrawn, judged again, or judged by blocked people do not count, though
their batch does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from alignment.config.vocabulary import DOMAINS
from alignment.preferences.store import Batch, PreferenceStore, except_rows, read_index
from alignment.preferences.withdrawals import Event, concerning, read_events, withdrawn
from alignment.utils.files import digest_json, read_json

EXCLUDED = "excluded.json"
"""File among an intake's outputs: batch → rows that do not count. It is missing if all count."""
Excluded = Mapping[str, Mapping[int, str]]
"""Batch → row → why it does not count, in words."""


def excluded_rows(store: PreferenceStore) -> dict[str, dict[int, str]]:
    """Batch → row → why it does not count, of all deliveries and all batches in use."""
    events, batches = read_events(store.root), store.known()
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
    # Rows below zero are ties, which are no comparisons.
    kept = {id: {row: why for row, why in rows.items() if row >= 0} for id, rows in found.items()}
    return {id: rows for id, rows in kept.items() if rows}


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


def counting(batch: Batch, excluded: Excluded) -> dict[str, dict[str, int]]:
    """`batch.counts` without the excluded rows."""
    if batch.id not in excluded:
        return batch.counts
    import numpy as np

    index = read_index(batch)
    left = except_rows(np.ones(index.num_rows, bool), excluded[batch.id])
    heldout, safety = (index.column(name).to_numpy() for name in ("heldout", "safety"))
    return {
        side: {
            domain: int((left & mask & (safety == (domain == "safety"))).sum())
            for domain in DOMAINS
        }
        for side, mask in (("training", ~heldout), ("heldout", heldout))
    }


def comparisons(batches: Sequence[Batch], excluded: Excluded) -> int:
    """Number of comparisons in batches, without the excluded rows."""
    sides = [side for batch in batches for side in counting(batch, excluded).values()]
    return sum(sum(domains.values()) for domains in sides)


def domains_lacking(store: PreferenceStore, ids: Sequence[str]) -> list[str]:
    """Domains without a single training comparison that counts in the batches `ids`."""
    excluded, wanted = excluded_rows(store), set(ids)
    batches = [batch for batch in store.batches() if batch.id in wanted]
    sides = [counting(batch, excluded)["training"] for batch in batches]
    return [domain for domain in DOMAINS if not any(side.get(domain) for side in sides)]


def state_of(store: PreferenceStore, version: str) -> str | None:
    """Digest of what was taken back from `version`, given back to it or corrected; None if nothing
    was.

    It is part of the fingerprint of the version's intake. Of whole batches the events count and not
    only what holds now, for the version may have taken in other batches in between.
    """
    events = [asdict(event) for event in concerning(read_events(store.root), version)]
    rows = {id: sorted(found) for id, found in _excluded_of(store, version).items()}
    return digest_json([events, rows]) if events or rows else None


def taken_back(store: PreferenceStore, version: str, *, restored: bool = True) -> list[str]:
    """The same in words.

    Args:
        restored: also the batches that were given back.
    """
    newest = {event.target: event for event in concerning(read_events(store.root), version)}
    batches = [event for event in newest.values() if restored or event.action == "withdrawn"]
    rows = _excluded_of(store, version)
    return [
        *(event.in_words() for event in batches),
        *(line for id in rows for line in in_words(rows[id])),
    ]


def _excluded_of(store: PreferenceStore, version: str) -> dict[str, dict[int, str]]:
    """What is excluded of what a version has taken in, or would now."""
    excluded = excluded_rows(store)
    if not excluded:
        return {}
    ids = store.assignment(version)
    if ids is None:
        ids = [batch.id for batch in store.unassigned()]
    return {id: excluded[id] for id in ids if id in excluded}
