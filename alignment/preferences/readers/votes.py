"""Several verdicts on one pair: the majority wins, the agreement is the strength."""

from __future__ import annotations

from collections.abc import Sequence

from alignment.config.intake import Thresholds
from alignment.preferences.rows import RowError


def majority(votes: Sequence[str], thresholds: Thresholds) -> tuple[bool, str, list[str]]:
    """Whether the first answer wins, the strength, and the votes as seen by the winner.

    Args:
        votes: `first`, `second` or `tie`, one a person.

    Raises:
        RowError: as many for one as for the other (`tie`), or no vote at all.
    """
    if not votes:
        raise RowError("not_annotated", "votes")
    first, second = votes.count("first"), votes.count("second")
    ties = len(votes) - first - second
    if first == second or ties > max(first, second):
        raise RowError("tie", "votes", f"{first} to {second}, {ties} undecided")
    wins = first > second
    names = {"first": "chosen", "second": "rejected"}
    if not wins:
        names = {"first": "rejected", "second": "chosen"}
    strength = thresholds.strength(max(first, second) / len(votes))
    return wins, strength, [names.get(vote, "tie") for vote in votes]
