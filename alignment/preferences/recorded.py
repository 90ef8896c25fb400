"""Who judged the comparisons of a batch, how and when, as far as it is recorded.

comparisons.parquet names the one person behind a verdict. people.parquet, of batches that need it,
names everybody where several judged a pair, and when the tool last changed a verdict.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

PEOPLE = "people.parquet"
_TEXT = pa.string()
PEOPLE_SCHEMA = pa.schema(
    [("row", pa.int64()), ("annotator", _TEXT), ("vote", _TEXT), ("judged", _TEXT)]
)
"""One line a person and comparison: `vote` is `chosen`, `rejected` or `tie`. Rows below zero are of
ties, which leave no comparison and correct an earlier one."""


@dataclass(frozen=True)
class Verdict:
    """One comparison's; `people` holds None where a name is not known."""

    strength: str
    safety_bin: str | None
    people: frozenset[str | None]
    judged: str | None


class RecordedVerdicts:
    """The verdicts of one batch, by row."""

    def __init__(self, comparisons: pa.Table, people: pa.Table | None):
        names = ("strength", "safety_bin", "annotator")
        self._columns = {name: _encoded(comparisons.column(name)) for name in names}
        self._voted = np.flatnonzero(comparisons.column("votes").is_valid().to_numpy()).tolist()
        self._people: dict[int, list[tuple[str | None, str, str | None]]] = defaultdict(list)
        if people is not None:
            columns = [people.column(name).to_pylist() for name in PEOPLE_SCHEMA.names]
            for row, *person in zip(*columns, strict=True):
                self._people[row].append(tuple(person))

    @classmethod
    def read(cls, directory: Path) -> RecordedVerdicts:
        """Those of the batch in a directory, which never changes."""
        return _read(directory)

    def verdict(self, row: int) -> Verdict:
        """The verdict of a row."""
        people = self._people.get(row, [])
        strength = self._at("strength", row)
        assert strength is not None
        return Verdict(
            strength,
            self._at("safety_bin", row),
            frozenset(name for name, _, _ in people) or frozenset({self._at("annotator", row)}),
            max((when for _, _, when in people if when is not None), default=None),
        )

    def people(self) -> set[str]:
        """Everybody who is named."""
        names = {name for people in self._people.values() for name, _, _ in people}
        return {name for name in (*names, *self._columns["annotator"][0]) if name is not None}

    def unnamed(self) -> int:
        """Number of comparisons that several people judged of whom no name is recorded."""
        return sum(
            all(name is None for name, _, _ in self._people.get(row, [])) for row in self._voted
        )

    def without(self, blocked: Collection[str]) -> Iterator[tuple[int, str]]:
        """Rows that do not stand without the verdicts of `blocked`, and one of those people.

        A pair that several judged stands as long as the others still prefer the same answer, and a
        tie as long as the others still find one.
        """
        names, codes = self._columns["annotator"]
        wanted = [code for code, name in enumerate(names) if name in blocked]
        for row in np.flatnonzero(np.isin(codes, wanted)).tolist():
            yield row, str(names[codes[row]])
        for row, people in self._people.items():
            who = next((name for name, _, _ in people if name in blocked), None)
            if who is None:
                continue
            left = Counter(vote for name, vote, _ in people if name not in blocked)
            chosen, rejected = left["chosen"], left["rejected"]
            tied = chosen == rejected or left["tie"] > max(chosen, rejected)
            holds = bool(left) and tied if row < 0 else chosen > rejected and not tied
            if not holds:
                yield row, who

    def _at(self, column: str, row: int) -> str | None:
        names, codes = self._columns[column]
        return names[int(codes[row])]


@lru_cache(maxsize=64)
def _read(directory: Path) -> RecordedVerdicts:
    columns = ["strength", "safety_bin", "annotator", "votes"]
    comparisons = pq.read_table(directory / "comparisons.parquet", columns=columns)
    path = directory / PEOPLE
    return RecordedVerdicts(comparisons, pq.read_table(path) if path.is_file() else None)


def _encoded(column: pa.ChunkedArray) -> tuple[list[str | None], np.ndarray]:
    """The different values of a column, and each row's place among them."""
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False)
