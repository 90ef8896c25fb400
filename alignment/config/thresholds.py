"""Lower bounds that turn a number into the strength of a preference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator

from alignment.config.vocabulary import Strength

Bound = Literal["significantly", "better", "slightly"]


def _falling(bounds: dict[Bound, float]) -> dict[Bound, float]:
    if not bounds["significantly"] >= bounds["better"] >= bounds["slightly"] >= 0:
        raise ValueError("thresholds must fall: significantly >= better >= slightly >= 0")
    return bounds


Thresholds = Annotated[dict[Bound, float], AfterValidator(_falling)]
"""Strength → from which value on; what lies below all is `negligibly`."""

SLACK = 1e-9
"""Added to a quotient, so that 2/3 reaches a threshold written as 0.6667 minus rounding."""


def strength_of(value: float, bounds: Mapping[Bound, float]) -> Strength:
    """The strength that `value` stands for."""
    for strength, bound in bounds.items():
        if value >= bound:
            return strength
    return "negligibly"


ENOUGH_LABELS = 200
"""Answers labelled safe or unsafe that a safety reward model needs to know P(safe)."""
