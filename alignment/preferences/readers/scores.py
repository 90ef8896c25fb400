"""What a row says about how much better the chosen answer is: a strength, scores, or a margin."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from alignment.config.intake import IntakeConfig
from alignment.config.thresholds import SLACK, strength_of
from alignment.preferences.readers.format import label, number
from alignment.preferences.rows import RowError

SCORES = tuple(
    names
    for stem in ("score", "rating", "grade", "reward")
    for sign in ("_", "-")
    for names in (
        (f"{stem}{sign}chosen", f"{stem}{sign}rejected"),
        (f"chosen{sign}{stem}", f"rejected{sign}{stem}"),
    )
)
"""Columns of the two answers' scores, as UltraFeedback and its descendants spell them."""
_FLAGS = ("tie", "is_tie", "winner_tie")
_PAIRS = ("scores", "score", "ratings", "rating")
TIES = (*_FLAGS, *_PAIRS, "winner", "preference", "label", "choice", "status", "verdict")
"""Columns that may say that neither answer is better; the rest of what they say is not read."""
_TIE = re.compile(
    r"(?:tied?|draw|equal|both|neither|same|no[ _]preference)(?![a-z])", re.IGNORECASE
)
COLUMNS = frozenset(
    {"strength", "margin", "tie", "is_tie", *(name for names in SCORES for name in names)}
)
_SAYS = COLUMNS.union(TIES) - {"strength"}
LARGE_MARGIN = {3.0: "significantly", 2.0: "better", 1.0: "slightly", 0.0: "negligibly"}
"""Llama 2's large margin (table 27), which TRL's column `margin` holds."""


def stated_strength(row: Mapping[str, Any], config: IntakeConfig) -> str:
    """The strength of a pair whose columns name the chosen answer.

    In this order: `strength`; the gap of two scores by `intake.score_gaps`; TRL's `margin`, where
    Llama 2's own numbers 3, 2, 1, 0 are its four strengths and any other is a gap; else
    `intake.strength`.

    Raises:
        RowError: a tie (equal scores, or a column that says so), scores that favour the other
            answer, or no numbers.
    """
    if _SAYS.isdisjoint(row):
        return label(row, "strength") or config.strength
    gap: float | None = None
    for name in TIES:
        if _says_tie(name, row.get(name)):
            raise RowError("tie", name)
    for names in SCORES:
        chosen, rejected = (score(row, name) for name in names)
        if chosen is None and rejected is None:
            continue
        if chosen is None or rejected is None:
            raise RowError("missing_field", names[chosen is not None], "only one has a score")
        if chosen < rejected:
            raise RowError("scores_against", names[0], f"{chosen:g} against {rejected:g}")
        if chosen == rejected:
            raise RowError("tie", names[0], f"both have {chosen:g}")
        gap = chosen - rejected if gap is None else gap
    margin = score(row, "margin")
    if margin is not None and margin < 0:
        raise RowError("scores_against", "margin", f"{margin:g}")
    stated = label(row, "strength")
    if stated:
        return stated
    if gap is None and margin in LARGE_MARGIN:
        return LARGE_MARGIN[margin]
    gap = margin if gap is None else gap
    return config.strength if gap is None else strength_of(gap + SLACK, config.score_gaps)


def _says_tie(name: str, value: Any) -> bool:
    if type(value) is str:  # "tie", "Tie (both bad)", "draw"
        return _TIE.match(value.strip()) is not None
    if name in _FLAGS:
        return value is True or value == 1
    if name in _PAIRS and type(value) is list and len(value) == 2:
        return number(value[0]) is not None and value[0] == value[1]
    return False


def score(row: Mapping[str, Any], name: str) -> float | None:
    """The finite number at `row[name]`; None if there is none.

    Raises:
        RowError: something else.
    """
    value = row.get(name)
    if value is None or (type(value) is float and math.isnan(value)):  # how pandas writes a gap
        return None
    found = number(value)
    if found is None:
        raise RowError("wrong_type", name, f"{type(value).__name__}, no finite number")
    return found
