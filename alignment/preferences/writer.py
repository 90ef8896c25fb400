"""Writes the files of a batch row by row."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alignment.preferences.arrow_schema import INDEX, LOW_CARDINALITY, SCHEMA, record_batch
from alignment.preferences.identity import Identity
from alignment.preferences.recorded import PEOPLE, PEOPLE_SCHEMA
from alignment.preferences.rows import DROPPED, REASONS, Draft, RowError

ROW_GROUP = 8192
QUARANTINED_CHARACTERS = 20_000  # of a quarantined row


class BatchWriter:
    """comparisons.parquet, index.parquet, quarantine.jsonl, people.parquet in `directory`."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._parquet = pq.ParquetWriter(
            directory / "comparisons.parquet",
            SCHEMA,
            compression="zstd",
            use_dictionary=LOW_CARDINALITY,
            write_statistics=False,
        )
        self._quarantine = (directory / "quarantine.jsonl").open("w", encoding="utf-8")
        self._drafts: list[Draft] = []
        self._sources: list[int] = []
        self._lines: list[int] = []
        self._ids = array("Q")
        self._openings = array("Q")
        self._safety = array("b")
        self._people: list[tuple[int, str | None, str, str | None]] = []

    def accept(self, draft: Draft, identity: Identity, source: int, line: int) -> None:
        """Add a comparison to the batch."""
        self._drafts.append(draft)
        self._sources.append(source)
        self._lines.append(line)
        self._ids.append(identity.own)
        self._openings.append(identity.opening)
        self._safety.append(draft.domain == "safety")
        if draft.judged is not None or len(draft.people or ()) > 1:
            self._people += _verdicts(len(self._ids) - 1, draft)
        if len(self._drafts) == ROW_GROUP:
            self._flush()

    def tie(self, draft: Draft, row: int) -> None:
        """Record who found the tie that corrects an earlier verdict.

        Args:
            row: below zero, see `Standing.tie`.
        """
        self._people += _verdicts(row, draft)

    def refuse(self, error: RowError, file: str, line: int, raw: bytes | None, value: Any) -> None:
        """Record a row that is not in the batch, with the reason."""
        entry: dict[str, Any] = {
            "file": file,
            "line": line,
            "field": error.field,
            "reason": error.reason,
            "message": REASONS[error.reason] + (f": {error.detail}" if error.detail else ""),
            "fate": "dropped" if error.reason in DROPPED else "quarantined",
        }
        if error.reason not in DROPPED:  # keep the row, so that it can be corrected and sent again
            text = raw.decode("utf-8", "backslashreplace") if raw is not None else _text(value)
            entry["row"] = text[:QUARANTINED_CHARACTERS]
        self._quarantine.write(json.dumps(entry) + "\n")

    @property
    def openings(self) -> np.ndarray:
        """Opening of every accepted comparison (n,)."""
        return np.array(self._openings, dtype=np.uint64)

    @property
    def safety(self) -> np.ndarray:
        """Mask (n,) of the safety comparisons."""
        return np.array(self._safety, dtype=bool)

    def finish(self, heldout: np.ndarray) -> None:
        """Write the remaining rows and the index, and close the files.

        Args:
            heldout: (n,) mask of the held-out comparisons.
        """
        self._flush()
        ids = np.array(self._ids, dtype=np.uint64)
        arrays = [pa.array(column) for column in (ids, self.openings, self.safety, heldout)]
        pq.write_table(
            pa.Table.from_arrays(arrays, schema=INDEX),
            self._directory / "index.parquet",
            compression="zstd",
            use_dictionary=False,
        )
        if self._people:
            columns = [list(column) for column in zip(*self._people, strict=True)]
            people = pa.table(columns, schema=PEOPLE_SCHEMA)
            pq.write_table(people, self._directory / PEOPLE, compression="zstd")
        self.close()

    def close(self) -> None:
        """Close the files without completing them."""
        self._parquet.close()
        self._quarantine.close()

    def _flush(self) -> None:
        if self._drafts:
            self._parquet.write_batch(record_batch(self._drafts, self._sources, self._lines))
            self._drafts, self._sources, self._lines = [], [], []


def _verdicts(row: int, draft: Draft) -> list[tuple[int, str | None, str, str | None]]:
    """The lines of a comparison in people.parquet."""
    people = draft.people or [(draft.annotator, "")]
    votes = draft.votes or ["chosen"]
    return [(row, name, vote, draft.judged) for (name, _), vote in zip(people, votes, strict=True)]


def _text(value: Any) -> str:
    return json.dumps(value, default=str)[:QUARANTINED_CHARACTERS] if value is not None else ""
