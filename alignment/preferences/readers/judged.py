"""A pair that people judged, and one person's verdict on it."""

from __future__ import annotations

from dataclasses import dataclass

from alignment.preferences.rows import Turn


@dataclass(frozen=True)
class AnnotatorVerdict:
    """One person's verdict: `first`, `second` or `tie`, the strength, the safety labels.

    `changed` is when it was last changed, in ISO 8601, where the tool says so.
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
    by: tuple[tuple[str, float] | None, tuple[str, float] | None]
    domain: str | None
    category: str | None
