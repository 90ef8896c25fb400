"""What people took back, and what they gave back: one file an event, never changed.

    preferences/withdrawals/0001.json   {"action", "kind", "target", "versions", "reason", "by", …}

A batch, single comparisons of one, or all that one annotator judged. Nothing is deleted: the newest
event on a target says whether it counts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from alignment.errors import StoreError
from alignment.utils.files import atomic_write_json, fsync_directory, read_json
from alignment.utils.user_name import user_name

FOLDER = "withdrawals"
Kind = Literal["batch", "comparison", "annotator"]
Action = Literal["withdrawn", "restored"]


@dataclass(frozen=True)
class Event:
    """A withdrawal, or its undoing.

    Attributes:
        target: id of the batch, or of the batch of the comparisons; or the annotator's name.
        label: what it is, for people.
        versions: those that had taken the batch in by then.
        when: the time in UTC.
        rows: of the single comparisons.
    """

    action: Action
    kind: Kind
    target: str
    label: str
    versions: tuple[str, ...]
    reason: str
    by: str
    when: str
    rows: tuple[int, ...] = ()

    def in_words(self) -> str:
        """`batch 0003-1f0c2a9b7d4e was withdrawn by ana on 2026-03-01: labels swapped`."""
        done: str = self.action
        if self.kind == "annotator":
            done = "blocked" if self.action == "withdrawn" else "unblocked"
        why = f": {self.reason}" if self.reason else ""
        return f"{self.kind} {self.label} was {done} by {self.by} on {self.when[:10]}{why}"


def read_events(root: Path) -> list[Event]:
    """All events of the store at `root`, oldest first.

    Raises:
        StoreError: a record is damaged.
    """
    events = []
    for path in _records(root):
        try:
            values = read_json(path)
            lists = {name: tuple(values[name]) for name in ("versions", "rows")}
            events.append(Event(**(values | lists)))
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(
                f"the record of a withdrawal is damaged: {error}",
                where=str(path),
                remedy="restore it from a copy; without it, what was taken back would count again",
            ) from error
    return events


def _records(root: Path) -> list[Path]:
    """The records, oldest first; other files beside them are none."""
    paths = [path for path in (root / FOLDER).glob("*.json") if path.stem.isdecimal()]
    return sorted(paths, key=lambda path: int(path.stem))


def withdrawn(events: Sequence[Event], kind: Kind) -> dict[str, Event]:
    """Batch or annotator → the event that took it back, for all that are taken back now."""
    newest = {event.target: event for event in events if event.kind == kind}
    return {target: event for target, event in newest.items() if event.action == "withdrawn"}


def concerning(events: Sequence[Event], version: str) -> list[Event]:
    """The events on whole batches that a version had taken in."""
    return [event for event in events if event.kind == "batch" and version in event.versions]


def record(
    root: Path,
    action: Action,
    kind: Kind,
    target: str,
    *,
    label: str,
    versions: Sequence[str] = (),
    reason: str,
    by: str | None,
    rows: Sequence[int] = (),
) -> Event:
    """Write an event down. The caller holds the store (`PreferenceStore.writing`)."""
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    who = by or user_name()
    event = Event(
        action, kind, target, label, tuple(versions), reason.strip(), who, when, tuple(rows)
    )
    number = 1 + max((int(path.stem) for path in _records(root)), default=0)
    atomic_write_json(root / FOLDER / f"{number:04d}.json", asdict(event))
    fsync_directory(root)  # the folder may be new
    return event
