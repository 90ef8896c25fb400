"""Cuts answers at stop texts."""

from __future__ import annotations

from collections.abc import Sequence


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """`text` up to its first stop text, then stripped; unchanged if it has none."""
    positions = [text.find(word) for word in stop if word in text]
    return text[: min(positions)].strip() if positions else text
