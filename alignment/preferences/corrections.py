"""What a new comparison is beside those that are there: new, known, a contradiction, a correction.

A verdict on a pair that has one already takes its place only if it says that it corrects it: by
`corrects`, or because the tool has changed the same person's verdict since. Everything else is a
duplicate, or is reported and left to a person.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from alignment.preferences.identity import Identity, Rows
from alignment.preferences.recorded import RecordedVerdicts, Verdict
from alignment.preferences.rows import Draft, RowError
from alignment.preferences.store import Batch

Place = tuple[str, int]
"""Batch and row."""


class Standing:
    """The comparisons of earlier batches, and those of the current one so far.

    Args:
        batches: the earlier ones, in order; `ids` are their comparisons', one after the other.
        excluded: batch → rows that do not count, see `excluded_rows`.
        everything: ids of batches none of whose rows counts.
        correcting: whether a verdict can take the place of one that stands.
    """

    def __init__(
        self,
        batches: Sequence[Batch],
        ids: Sequence[np.ndarray],
        excluded: Mapping[str, Collection[int]],
        *,
        everything: Collection[str] = (),
        correcting: bool = True,
    ):
        self._batches = batches
        self._starts = [0, *np.cumsum([len(own) for own in ids]).tolist()]
        self._rows = Rows(np.concatenate([*ids, np.zeros(0, np.uint64)]))
        self._excluded = excluded
        self._everything = everything
        self._correcting = correcting
        self._here: set[int] = set()
        self._recorded: dict[str, RecordedVerdicts] = {}
        self.replaced: dict[str, list[tuple[int, int]]] = defaultdict(list)
        """Batch → (row of the current batch, row there) of all verdicts on the same pair."""
        self.corrections = 0
        self._ties = 0

    def add(self, draft: Draft, identity: Identity) -> None:
        """Add a comparison of the current batch; its row there is the next one.

        Raises:
            RowError: it is known, or contradicts what stands without correcting it.
        """
        if identity.own in self._here:
            raise RowError("duplicate", "row")
        if identity.swapped in self._here:
            raise RowError(
                "conflict", "chosen", "the opposite verdict stands earlier in this batch"
            )
        same = [self._place(row) for row in self._rows.find(identity.own)]
        opposite = [self._place(row) for row in self._rows.find(identity.swapped)]
        named = _named(draft, identity)
        standing = [(place, True) for place in same if self._counts(place)]
        standing += [(place, False) for place in opposite if self._counts(place)]
        if named is not None and not standing:
            raise RowError("unknown_correction", "corrects", named)
        for place, agrees in standing:
            self._judge(draft, place, agrees)
        self.corrections += bool(standing)
        row = len(self._here)
        self._here.add(identity.own)
        if self._correcting:
            for batch, there in (*same, *opposite):
                self.replaced[batch].append((row, there))

    def tie(self, draft: Draft, identity: Identity) -> int | None:
        """Set aside the verdict that stands on a pair, where its people correct it to a tie.

        Returns:
            The tie's row: -1, -2, …, for it leaves no comparison. None if it corrects nothing.

        Raises:
            RowError: it says that it corrects a comparison on another pair.
        """
        _named(draft, identity)
        found = [*self._rows.find(identity.own), *self._rows.find(identity.swapped)]
        standing = [place for place in map(self._place, found) if self._counts(place)]
        corrected = [place for place in standing if self._is_corrected(draft, place)]
        if not corrected or not self._correcting:
            return None
        self._ties += 1
        self.corrections += len(corrected)
        for batch, row in corrected:
            self.replaced[batch].append((-self._ties, row))
        return -self._ties

    def _is_corrected(self, draft: Draft, place: Place) -> bool:
        before = self._verdict(place)
        return _says_so(draft, before, _same_people(before, draft))

    def _judge(self, draft: Draft, place: Place, agrees: bool) -> None:
        """Raise the `RowError` unless the draft corrects the verdict at `place`."""
        before = self._verdict(place)
        if agrees and (before.strength, before.safety_bin) == (draft.strength, draft.safety_bin):
            raise RowError("duplicate_earlier", "row")
        same_people = _same_people(before, draft)
        if self._correcting and _says_so(draft, before, same_people):
            return
        batch = self._name(place[0])
        if not agrees:
            raise RowError("conflict_earlier", "chosen", f"the opposite verdict stands in {batch}")
        if same_people is False or not self._correcting:
            raise RowError("duplicate_earlier", "row")
        raise RowError("differs_earlier", "strength", f"{batch} has {before.strength}")

    def _counts(self, place: Place) -> bool:
        batch, row = place
        return batch not in self._everything and row not in self._excluded.get(batch, ())

    def _place(self, row: int) -> Place:
        number = bisect_right(self._starts, row) - 1
        return self._batches[number].id, row - self._starts[number]

    def _name(self, id: str) -> str:
        return next(batch.name for batch in self._batches if batch.id == id)

    def _verdict(self, place: Place) -> Verdict:
        id, row = place
        if id not in self._recorded:
            directory = next(batch.directory for batch in self._batches if batch.id == id)
            self._recorded[id] = RecordedVerdicts.read(directory)
        return self._recorded[id].verdict(row)


def _named(draft: Draft, identity: Identity) -> str | None:
    """The id of the comparison that the draft says it corrects, if it names one.

    Raises:
        RowError: that comparison is on another pair.
    """
    if type(draft.corrects) is not str:
        return None
    if draft.corrects not in (f"{identity.own:016x}", f"{identity.swapped:016x}"):
        raise RowError("unknown_correction", "corrects", f"{draft.corrects} is on another pair")
    return draft.corrects


def _says_so(draft: Draft, before: Verdict, same_people: bool | None) -> bool:
    if type(draft.corrects) is str:
        return True
    if draft.corrects:
        return same_people is not False
    if draft.judged is None or before.judged is None:
        return False
    return same_people is True and draft.judged > before.judged


def _same_people(before: Verdict, draft: Draft) -> bool | None:
    """Whether all who judged then judge now; None where it is not known."""
    names = {name for name, _ in draft.people or []} or {draft.annotator}
    if None in names or None in before.people:
        return None
    return before.people <= names
