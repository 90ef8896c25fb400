"""A pair that people judged, and one person's verdict on it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from alignment.preferences.rows import By, Turn


@dataclass(frozen=True)
class AnnotatorVerdict:
    """One person's verdict: `first`, `second` or `tie`, the strength, the safety labels.

    `changed` is when it was last changed, where the tool says so, see `moment`.
    """

    choice: str
    strength: str | None = None
    safe: tuple[bool | None, bool | None] = (None, None)
    annotator: str | None = None
    changed: str = ""


@dataclass(frozen=True)
class AnnotatedPair:
    """The pair that annotators saw, with the provenance that was hidden from them."""

    conversation: list[Turn]
    answers: tuple[str, str]
    by: tuple[By | None, By | None]
    domain: str | None
    category: str | None
    corrects: bool | str = False
    """See `Draft.corrects`."""


def moment(value: Any) -> str:
    """A tool's time as text in UTC that sorts by time; empty if it says none."""
    try:
        found = datetime.fromisoformat(value)
        zoned = found if found.tzinfo else found.replace(tzinfo=UTC)
        return zoned.astimezone(UTC).isoformat(timespec="microseconds")
    except (TypeError, ValueError, OverflowError):  # no text, no time, one beyond the calendar
        return ""
