"""A cache of scores, so that no stage and no resumed run computes a score twice.

The key is the digest of the reward model's weights and that of the answer's token ids (prompt, then
answer). One SQLite file in the workspace holds all scores. It may be deleted, but a score that is
computed again in another batch may differ in its last bits.

The cache stores the head's output, before bias and scale, because a reward card may change.
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
QUERIED_AT_ONCE = 500  # keys in one query; SQLite limits the number of parameters
BROKEN = "it is only a cache: delete the file and run again"


def token_digest(ids: Sequence[int]) -> bytes:
    """A 16-byte digest of a sequence of token ids."""
    data = np.asarray(ids, dtype="<i4").tobytes()
    return hashlib.blake2b(data, digest_size=16).digest()


class ScoreCache:
    """The scores of one workspace; several processes and threads may use it at once.

    Args:
        workspace: the file is created in it with the first score.
    """

    def __init__(self, workspace: Path):
        self.path = workspace / FILE
        self.reused = 0
        """Number of scores read so far."""
        self.computed = 0
        """Number of scores added so far."""

    def get(self, model: str, keys: Sequence[bytes]) -> np.ndarray:
        """Scores (n,) of `model` for token digests `keys`; NaN where the cache has none.

        Raises:
            DataError: the file is damaged, or not a score cache.
        """
        scores = np.full(len(keys), np.nan)
        if not self.path.is_file() or not keys:
            return scores
        places = {key: place for place, key in enumerate(keys)}
        with self._open() as store:
            for start in range(0, len(keys), QUERIED_AT_ONCE):
                part = keys[start : start + QUERIED_AT_ONCE]
                marks = ",".join("?" * len(part))
                rows = store.execute(
                    f"SELECT tokens, score FROM scores WHERE model = ? AND tokens IN ({marks})",
                    (_short(model), *part),
                )
                for key, score in rows:
                    scores[places[key]] = score
        self.reused += int(np.isfinite(scores).sum())
        return scores

    def put(self, model: str, keys: Sequence[bytes], scores: np.ndarray) -> None:
        """Add the finite ones of `scores` (n,) in one transaction; existing scores stay.

        Raises:
            DataError: the file is damaged, or not a score cache.
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

    def report(self, progress: Progress) -> None:
        """Say how many scores came from the cache, if any did."""
        if self.reused:
            total = self.reused + self.computed
            progress.say(f"{self.reused:,} of {total:,} scores came from the cache")

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
