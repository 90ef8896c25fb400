"""Scores that were computed once, so that no stage and no resumed run computes them again.

A score depends on the reward model's weights and on the answer's token ids (prompt and answer in a
row), so these two digests are the key. One SQLite file in the workspace holds them all; deleting it
costs time and nothing else.

The value kept is the head's output, before bias and scale: a reward card may change, z does not.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from alignment.errors import DataError
from alignment.utils.progress import Progress

FILE = "cache/scores.sqlite"
PATIENCE = 120.0  # seconds to wait for another process that writes
ASKED_AT_ONCE = 500  # keys in one query: SQLite admits a limited number of parameters
BROKEN = "it is only a cache: delete the file and run again"


def token_digest(ids: Sequence[int]) -> bytes:
    """16 bytes that stand for a sequence of token ids."""
    data = np.asarray(ids, dtype="<i4").tobytes()
    return hashlib.blake2b(data, digest_size=16).digest()


class ScoreCache:
    """The scores of one workspace; several processes and threads may use it at once.

    Args:
        workspace: the file is made inside it when something is first kept.
    """

    def __init__(self, workspace: Path):
        self.path = workspace / FILE
        self.reused = 0
        """Scores found so far."""
        self.computed = 0
        """Scores put in so far."""

    def get(self, model: str, keys: Sequence[bytes]) -> np.ndarray:
        """The known scores of `model` for token digests `keys` (n,); NaN where there is none.

        Raises:
            DataError: the file is no cache of ours.
        """
        found = np.full(len(keys), np.nan)
        if not self.path.is_file() or not keys:
            return found
        places = {key: place for place, key in enumerate(keys)}
        with self._open() as store:
            for start in range(0, len(keys), ASKED_AT_ONCE):
                part = keys[start : start + ASKED_AT_ONCE]
                marks = ",".join("?" * len(part))
                rows = store.execute(
                    f"SELECT tokens, score FROM scores WHERE model = ? AND tokens IN ({marks})",
                    (_short(model), *part),
                )
                for key, score in rows:
                    found[places[key]] = score
        self.reused += int(np.isfinite(found).sum())
        return found

    def put(self, model: str, keys: Sequence[bytes], scores: np.ndarray) -> None:
        """Keep finite scores (n,) of `model`, all or none of them; the first that came stays.

        Raises:
            DataError: the file is no cache of ours.
        """
        rows = [
            (_short(model), key, float(score))
            for key, score in zip(keys, scores, strict=True)
            if np.isfinite(score)
        ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as store, store:
            store.execute(
                "CREATE TABLE IF NOT EXISTS scores (model BLOB, tokens BLOB, score REAL, "
                "PRIMARY KEY (model, tokens)) WITHOUT ROWID"
            )
            store.executemany("INSERT OR IGNORE INTO scores VALUES (?, ?, ?)", rows)
        self.computed += len(rows)

    def tell(self, progress: Progress) -> None:
        """Say what was saved, if anything was."""
        if self.reused:
            every = self.reused + self.computed
            progress.say(f"{self.reused:,} of {every:,} scores were known already")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=PATIENCE)) as store:
                yield store
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"the score cache cannot be used: {error}", where=str(self.path), remedy=BROKEN
            ) from None


def _short(model: str) -> bytes:
    return bytes.fromhex(model)[:16]
