"""A corpus and a model so small that pretraining takes a second."""

from __future__ import annotations

from typing import Any

TEXTS = [f"the cat number {n} sat on the {'mat' if n % 2 else 'hat'}." for n in range(60)]
SMALL: dict[str, Any] = {
    "vocabulary": 320,
    "hidden": 32,
    "layers": 2,
    "intermediate": 48,
    "length": 16,
    "context": 64,
    "batch": 8,
    "steps": 14,
    "checkpoint_every": 5,
}
