"""What a new comparison is beside those that are there: new, known, a contradiction, a correction.

A verdict on a pair that has one already takes its place only if it says that it corrects it: by
`corrects`, or because the tool has changed the same person's verdict since. Verdicts of other
people stand beside it, alike or not: else the first to arrive would win, and disagreement, which
the reward model's calibration needs, would vanish. Where it is not known who judged, a verdict may
as well be a correction that does not say so: it is a duplicate, or is left to a person.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from alignment.preferences.gather import Repeats, pair_of, says
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
        self._here: dict[int, int] = {}  # comparison → what its row says
        self.repeats = Repeats()
        """Pairs that stand in the current delivery several times."""
        self.beside: Counter[str] = Counter()
        """Comparisons on pairs on which other people's verdict stands: they `agree` or `differ`."""
        self._recorded: dict[str, RecordedVerdicts] = {}
        self.replaced: dict[str, list[tuple[int, int]]] = defaultdict(list)
        """Batch → (row of the current batch, row there) of the verdicts on the same pair whose
        place it takes, now or when they count again."""
        self.corrections = 0
        self._ties = 0

    def judge(self, draft: Draft, identity: Identity) -> list[Place]:
        """Hold a comparison against those of earlier batches.

        Returns:
            The verdicts that stand beside it, of other people.

        Raises:
            RowError: it is known, or contradicts what stands without correcting it.
        """
        standing = [(place, True) for place in self._places(identity.own) if self._counts(place)]
        standing += [
            (place, False) for place in self._places(identity.swapped) if self._counts(place)
        ]
        named = _named(draft, identity)
        if named is not None and not standing:
            raise RowError("unknown_correction", "corrects", named)
        beside: list[Place] = []
        error, corrects = None, False
        for place, agrees in standing:
            try:
                if self._stands_beside(draft, place, agrees):
                    beside.append(place)
                else:
                    corrects = True
            except RowError as found:
                error = error or found
        if error is not None and not corrects:
            raise error
        return beside

    def add(self, draft: Draft, identity: Identity) -> None:
        """Add a comparison of the current batch; its row there is the next one.

        Raises:
            RowError: as `judge`; or the pair stands in the batch already.
        """
        beside = self.judge(draft, identity)
        for reason, own in (("duplicate", identity.own), ("conflict", identity.swapped)):
            if own in self._here:
                copy = reason == "duplicate" and self._here[own] == says(draft)
                self.repeats.add(pair_of(identity), copy=copy)
                raise RowError(reason, "row")
        same, opposite = self._places(identity.own), self._places(identity.swapped)
        self.corrections += any(
            place not in beside and self._counts(place) for place in (*same, *opposite)
        )
        self.beside["agree"] += any(place in beside for place in same)
        self.beside["differ"] += any(place in beside for place in opposite)
        row = len(self._here)
        self._here[identity.own] = says(draft)
        if self._correcting:
            for place in (*same, *opposite):
                if place not in beside:
                    self.replaced[place[0]].append((row, place[1]))

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

    def _stands_beside(self, draft: Draft, place: Place, agrees: bool) -> bool:
        """Whether the draft and the verdict at `place` are other people's and both count; if not,
        the draft corrects it.

        Raises:
            RowError: the draft is a duplicate, or contradicts it without saying that it corrects.
        """
        before = self._verdict(place)
        others = self._correcting and _other_people(before, draft)
        alike = (before.strength, before.safety_bin) == (draft.strength, draft.safety_bin)
        if agrees and alike and not others:
            raise RowError("duplicate_earlier", "row")
        same_people = _same_people(before, draft)
        if self._correcting and _says_so(draft, before, same_people):
            return False
        if others:
            return True
        batch = self._name(place[0])
        if not agrees:
            raise RowError("conflict_earlier", "chosen", f"the opposite verdict stands in {batch}")
        if same_people is False or not self._correcting:
            raise RowError("duplicate_earlier", "row")
        raise RowError("differs_earlier", "strength", f"{batch} has {before.strength}")

    def _places(self, id: int) -> list[Place]:
        return [self._place(row) for row in self._rows.find(id)]

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


def _names(draft: Draft) -> set[str | None]:
    return {name for name, _ in draft.people or []} or {draft.annotator}


def _same_people(before: Verdict, draft: Draft) -> bool | None:
    """Whether all who judged then judge now; None where it is not known."""
    names = _names(draft)
    if None in names or None in before.people:
        return None
    return before.people <= names


def _other_people(before: Verdict, draft: Draft) -> bool:
    """Whether it is known that nobody who judged then judges now."""
    names = _names(draft)
    return None not in names | before.people and before.people.isdisjoint(names)
