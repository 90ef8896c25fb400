"""What a person reads of an answer."""

from __future__ import annotations

from collections.abc import Sequence


def cut_at_stop(text: str, stop: Sequence[str]) -> str:
    """`text` up to the first stop text in it, edges removed."""
    places = [text.find(one) for one in stop if one in text]
    return text[: min(places)].strip() if places else text
