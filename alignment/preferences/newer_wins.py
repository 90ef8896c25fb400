"""How often the newer of two versions wins: Llama 2's check against regressions (§3.2.1)."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from alignment.config.vocabulary import version_order
from alignment.preferences.rows import Draft
from alignment.utils.statistics import FEW_CLUSTERS, Interval, clustered_rate


class NewerWins:
    """Comparisons between different versions, in the order in which they came."""

    def __init__(self) -> None:
        self._won = array("b")
        self._opening = array("Q")
        self._annotator = array("q")
        self._newer_temperature = array("d")
        self._older_temperature = array("d")
        self._names: dict[tuple[str | None, ...], int] = {}

    def add(self, draft: Draft, opening: int) -> None:
        """Count a comparison, if it says who wrote both answers and these are two versions."""
        chosen, rejected = draft.chosen_by, draft.rejected_by
        if chosen is None or rejected is None:
            return
        left, right = version_order(chosen.version), version_order(rejected.version)
        if left == right:
            return
        won = left > right
        newer, older = (chosen, rejected) if won else (rejected, chosen)
        people = (
            tuple(sorted({name or "" for name, _ in draft.people}))
            if draft.people
            else (draft.annotator or "",)
        )
        known = all(people)
        self._won.append(won)
        self._opening.append(opening)
        self._annotator.append(self._names.setdefault(people, len(self._names)) if known else -1)
        self._newer_temperature.append(newer.temperature)
        self._older_temperature.append(older.temperature)

    def to_dict(self) -> dict[str, Any]:
        """`pairs` and the `share` of them that the newer version won; if there are any also:

        * `low`, `high`: 95 % interval over `over`, openings, or annotators where that is wider:
          pairs with one opening and verdicts of one person are not independent. What fewer than
          `FEW_CLUSTERS` annotators have in common cannot be told, so the interval is theirs alone;
        * `temperature`: mean of both sides; `hotter`, `cooler`: pairs and share where the newer
          answer was drawn at a higher and at a lower temperature. `collect` draws both from one
          grid, so that on average neither side is hotter; other deliveries may not.
        """
        won = np.array(self._won, dtype=float)
        if not len(won):
            return {"pairs": 0, "share": None}
        newer, older = np.array(self._newer_temperature), np.array(self._older_temperature)
        interval, over = self._interval(won)
        return {
            "pairs": len(won),
            "share": round(interval.mean, 4),
            "low": round(interval.low, 4),
            "high": round(interval.high, 4),
            "over": over,
            "temperature": {
                "newer": round(float(newer.mean()), 4),
                "older": round(float(older.mean()), 4),
            },
            "hotter": _part(won[newer > older]),
            "cooler": _part(won[newer < older]),
        }

    def _interval(self, won: np.ndarray) -> tuple[Interval, str]:
        openings = np.frombuffer(self._opening, dtype=np.uint64)
        annotators = np.frombuffer(self._annotator, dtype=np.int64)
        found, over = clustered_rate(won, openings), "openings"
        if annotators.min() >= 0 and len(np.unique(annotators)) >= FEW_CLUSTERS:
            other = clustered_rate(won, annotators)
            if other.high - other.low > found.high - found.low:
                return other, "annotators"
        return found, over


def _part(won: np.ndarray) -> dict[str, Any]:
    return {"pairs": len(won), "share": round(float(won.mean()), 4) if len(won) else None}


def newer_in_words(figures: dict[str, Any]) -> str:
    """The share with what one must know to read it. Batches of release 0.1 have no interval."""
    text = f"{figures['share']:.1%}"
    if "low" in figures:
        text += f" [{figures['low']:.0%}–{figures['high']:.0%}, over {figures['over']}]"
    text += f" of {figures['pairs']:,}"
    drawn = figures.get("temperature")
    if drawn is not None and drawn["newer"] != drawn["older"]:
        text += f"; drawn at T {drawn['newer']:.2f}, the older at T {drawn['older']:.2f} on average"
        shares = [
            f"{figures[name]['share']:.0%} of {figures[name]['pairs']:,} where it was {name}"
            for name in ("hotter", "cooler")
            if figures[name]["pairs"]
        ]
        text += f" ({', '.join(shares)})"
    return text
