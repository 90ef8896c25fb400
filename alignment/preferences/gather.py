"""Several verdicts on one pair within a delivery, one row a person, in formats of which no reader
puts them together: they become one comparison by majority.

The rows of a pair are known only when the last one was read. A delivery without such pairs is read
once, row by row. One that has some is read a second time, which keeps only their rows in memory,
each pair's until it is complete.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from alignment.config.intake import IntakeConfig
from alignment.preferences.identity import Identity
from alignment.preferences.readers.judged import AnnotatedPair, AnnotatorVerdict
from alignment.preferences.readers.verdicts import draft_from_verdicts
from alignment.preferences.rows import Draft
from alignment.preferences.schema import composed
from alignment.preferences.sources import Record

_SAFE = {"chosen_safe": (True, False), "both_safe": (True, True), "both_unsafe": (False, False)}


class Row(NamedTuple):
    """One row of a pair, and where it stands."""

    draft: Draft
    identity: Identity
    record: Record
    source: int


@dataclass
class Repeats:
    """What the first reading finds out about pairs that stand in several rows."""

    rows: Counter[int] = field(default_factory=Counter)
    """Pair → its rows, where there are several."""
    several: set[int] = field(default_factory=set)
    """Pairs whose rows are not copies of one another."""

    def add(self, pair: int, *, copy: bool) -> None:
        """Count a further row of a pair."""
        self.rows[pair] += 1 if pair in self.rows else 2
        if not copy:
            self.several.add(pair)


class Gathering:
    """The rows of pairs with several verdicts, until each pair is complete."""

    def __init__(self, repeats: Repeats):
        self._repeats = repeats
        self._held: dict[int, list[Row]] = {}

    def wants(self, identity: Identity) -> bool:
        """Whether the pair has several verdicts."""
        return pair_of(identity) in self._repeats.several

    def add(self, row: Row) -> list[Row]:
        """Hold a row; returns all rows of its pair if it is the last, else nothing."""
        pair = pair_of(row.identity)
        held = self._held.setdefault(pair, [])
        held.append(row)
        return self._held.pop(pair) if len(held) == self._repeats.rows[pair] else []


def pair_of(identity: Identity) -> int:
    """One number for both verdicts on a pair."""
    return min(identity.own, identity.swapped)


def says(draft: Draft) -> int:
    """What a row says beside who won: two rows on a pair that say the same are copies. Only
    comparable within a process."""
    people = None if draft.people is None else tuple(draft.people)
    votes = None if draft.votes is None else tuple(draft.votes)
    return hash((draft.annotator, draft.strength, draft.safety_bin, people, votes, draft.judged))


def combined(drafts: Sequence[Draft], config: IntakeConfig) -> Draft:
    """The comparison that follows from all verdicts on a pair, in the order of the first.

    A person has one verdict, the last; a row without a name is a person of its own. The rest is as
    where a tool's export has several verdicts, see `draft_from_verdicts`: strengths that rows state
    decide the strength, else the majority's share does.

    Raises:
        RowError: the verdicts are tied.
    """
    first = drafts[0]
    pair = AnnotatedPair(
        first.turns,
        (first.chosen, first.rejected),
        (first.chosen_by, first.rejected_by),
        first.domain,
        first.category,
        next((draft.corrects for draft in drafts if draft.corrects), False),
    )
    chosen = composed(first.chosen)
    verdicts = [
        verdict
        for draft in drafts
        for verdict in _verdicts(draft, composed(draft.chosen) == chosen)
    ]
    found = draft_from_verdicts(pair, verdicts, config)
    found.group = next((draft.group for draft in drafts if draft.group is not None), None)
    found.notes += tuple(note for draft in drafts for note in draft.notes)
    found.prompt_characters = first.prompt_characters
    return found


def _verdicts(draft: Draft, same: bool) -> list[AnnotatorVerdict]:
    """The verdicts that a row holds.

    Args:
        same: its chosen answer is the first one of the pair.
    """
    names = {"chosen": "first", "rejected": "second"}
    safe: tuple[bool | None, bool | None] = _SAFE.get(draft.safety_bin or "", (None, None))
    if not same:
        names = {"chosen": "second", "rejected": "first"}
        safe = safe[::-1]
    if draft.votes is None:
        strength = None if draft.unrated else draft.strength
        choices = [(draft.annotator, "chosen")]
    else:  # the row's strength is that of its own majority
        strength = None
        people = draft.people or [(None, "")] * len(draft.votes)
        choices = [(name, vote) for (name, _), vote in zip(people, draft.votes, strict=True)]
    return [
        AnnotatorVerdict(
            names.get(vote, "tie"),
            strength if vote == "chosen" else None,
            safe if vote == "chosen" else (None, None),
            name,
            draft.judged or "",
        )
        for name, vote in choices
    ]
