"""What counts of the store's batches now, and what of a version's was taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from alignment.config.vocabulary import DOMAINS
from alignment.preferences.exclusions import Excluded, exclusions, in_words
from alignment.preferences.store import Batch, PreferenceStore, except_rows, read_index
from alignment.preferences.withdrawals import concerning, read_events
from alignment.utils.files import digest_json


def excluded_rows(store: PreferenceStore) -> dict[str, dict[int, str]]:
    """Batch → row → why it does not count, of all deliveries and all batches in use."""
    return exclusions(store.known(), read_events(store.root))


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
