"""What people took back, and what they gave back: one file an event, never changed.

    preferences/withdrawals/0001.json   {"action", "kind", "target", "versions", "reason", "by", …}

Nothing is deleted: the newest event on a target says whether it counts. Intake reads this; a
version's intake is stale once an event names the version.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from alignment.errors import StoreError
from alignment.utils.files import atomic_write_json, digest_json, fsync_directory, read_json
from alignment.utils.user_name import user_name

FOLDER = "withdrawals"
Kind = Literal["batch"]


@dataclass(frozen=True)
class Event:
    """A withdrawal, or its undoing.

    Attributes:
        target: id of the batch.
        label: its name, for people.
        versions: those that had taken it in by then.
        when: the time in UTC.
    """

    action: Literal["withdrawn", "restored"]
    kind: Kind
    target: str
    label: str
    versions: tuple[str, ...]
    reason: str
    by: str
    when: str

    def in_words(self) -> str:
        """`batch 0003-1f0c2a9b7d4e was withdrawn by ana on 2026-03-01: labels swapped`."""
        why = f": {self.reason}" if self.reason else ""
        return f"{self.kind} {self.label} was {self.action} by {self.by} on {self.when[:10]}{why}"


def read_events(root: Path) -> list[Event]:
    """All events of the store at `root`, oldest first.

    Raises:
        StoreError: a record is damaged.
    """
    events = []
    for path in sorted((root / FOLDER).glob("*.json"), key=lambda path: int(path.stem)):
        try:
            values = read_json(path)
            events.append(Event(**{**values, "versions": tuple(values["versions"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(
                f"the record of a withdrawal is damaged: {error}",
                where=str(path),
                remedy="restore it from a copy; without it, what was taken back would count again",
            ) from error
    return events


def withdrawn(events: Sequence[Event], kind: Kind) -> dict[str, Event]:
    """Target → the event that took it back, for all that are taken back now."""
    newest = {event.target: event for event in events if event.kind == kind}
    return {target: event for target, event in newest.items() if event.action == "withdrawn"}


def concerning(events: Sequence[Event], version: str) -> list[Event]:
    """The events that change what a version learns from."""
    return [event for event in events if version in event.versions]


def state_of(root: Path, version: str) -> str | None:
    """Digest of what was taken back from a version or given back to it; None if nothing ever was.

    It is part of the fingerprint of the version's intake. Events are counted and not only what
    holds now, for a version may have taken in other batches between a withdrawal and its undoing.
    """
    events = concerning(read_events(root), version)
    return digest_json([asdict(event) for event in events]) if events else None


def in_words(root: Path, version: str) -> list[str]:
    """The newest event on each target that concerns a version, in words."""
    newest = {(event.kind, event.target): event for event in concerning(read_events(root), version)}
    return [event.in_words() for event in newest.values()]


def record(
    root: Path,
    action: Literal["withdrawn", "restored"],
    kind: Kind,
    target: str,
    *,
    label: str,
    versions: Sequence[str],
    reason: str,
    by: str | None,
) -> Event:
    """Write an event down. The caller holds the store (`PreferenceStore.writing`)."""
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    who = by or user_name()
    event = Event(action, kind, target, label, tuple(versions), reason.strip(), who, when)
    number = 1 + max((int(path.stem) for path in (root / FOLDER).glob("*.json")), default=0)
    atomic_write_json(root / FOLDER / f"{number:04d}.json", asdict(event))
    fsync_directory(root)  # the folder may be new
    return event
