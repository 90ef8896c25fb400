"""How far several people agree on the same pairs, and how far beyond chance."""

from __future__ import annotations

from collections import Counter


def agreement(votes: Counter[str]) -> float:
    """Share of pairs of people who gave the same vote on a pair, from the number of each vote."""
    people = votes.total()
    return sum(n * (n - 1) for n in votes.values()) / (people * (people - 1))


class Alpha:
    """Krippendorff's alpha for nominal votes (one answer, the other, a tie) of any number of
    people: α = 1 − Dₒ/Dₑ over the coincidences within pairs (Krippendorff, Computing Krippendorff's
    Alpha-Reliability, 2011, C).

    The order of a pair's answers means nothing, so each pair counts in both orders: by chance a
    vote is as likely for the one answer as for the other, however the file lists them.
    """

    def __init__(self) -> None:
        self._votes = 0
        self._ties = 0
        self._disagreement = 0.0

    def add(self, votes: Counter[str]) -> None:
        """Add a pair by the number of each vote, `tie` among them; at least two votes."""
        self._votes += votes.total()
        self._ties += votes["tie"]
        self._disagreement += votes.total() * (1 - agreement(votes))

    def value(self) -> float | None:
        """1: always agreed; 0: as by chance; None: nothing to agree about."""
        total, ties = 2 * self._votes, 2 * self._ties
        side = self._votes - self._ties
        alike = 2 * side * (side - 1) + ties * (ties - 1)
        expected = 1 - alike / (total * (total - 1)) if total else 0.0
        if not expected:
            return None
        return round(1 - self._disagreement / self._votes / expected, 4)
