"""A cache of scores, so that no resumed run and no repeated measurement computes a score twice.

A score's last bits depend on the answers beside it in a forward pass. So what is kept is a whole
piece: scores that were computed together, under a digest of everything that decides their bits. A
piece is found whole or computed whole, and a cache never changes a result, whatever it holds.

    cache/scores/MODEL/PIECE    the head's outputs, before bias and scale, which may change

A file holds a digest of its scores, then the scores. It is written by one rename, so that many
processes, on many machines, may share them.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from alignment.utils.files import atomic_write_bytes
from alignment.utils.progress import Progress

DIRECTORY = "cache/scores"
OLD = "cache/scores.sqlite"  # of 0.1, which kept every score by itself
DIGEST = 16  # bytes
STALE = 3600.0  # seconds after which an unfinished file belongs to no living process
log = logging.getLogger("alignment")

Answer = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of a prompt and of an answer."""


def piece_digest(answers: Sequence[Answer], how: Sequence[object]) -> str:
    """Digest (hex) of answers in order, and of how they are computed."""
    digest = hashlib.blake2b(repr(tuple(how)).encode(), digest_size=16)
    for ids in (ids for answer in answers for ids in answer):
        digest.update(len(ids).to_bytes(8, "little") + np.asarray(ids, dtype="<i4").tobytes())
    return digest.hexdigest()


class ScoreCache:
    """The scores of one workspace; several processes and threads may use it at once.

    Args:
        workspace: the directory is created in it with the first score.
    """

    def __init__(self, workspace: Path):
        self.directory = workspace / DIRECTORY
        self._old = workspace / OLD
        self._swept: set[Path] = set()
        self.reused = 0
        """Number of scores read so far."""
        self.computed = 0
        """Number of scores added so far."""

    def get(self, model: str, piece: str, count: int) -> np.ndarray | None:
        """The scores (count,) of a piece by `model`, or None where they are not kept.

        A damaged file counts as none, with a warning: it is computed again, to the same bits.
        """
        path = self._path(model, piece)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        digest, scores = content[:DIGEST], content[DIGEST:]
        if digest != _digest(scores) or len(scores) != 8 * count:
            log.warning("%s is damaged; its scores are computed again", path)
            return None
        self.reused += count
        return np.frombuffer(scores, dtype="<f8").astype(np.float64)

    def put(self, model: str, piece: str, scores: np.ndarray) -> None:
        """Keep the scores (n,) of a piece; without effect if one of them is not finite."""
        self.computed += len(scores)
        if not np.isfinite(scores).all():
            return
        path = self._path(model, piece)
        self._sweep(path.parent)
        content = scores.astype("<f8").tobytes()
        atomic_write_bytes(path, _digest(content) + content)
        self._old.unlink(missing_ok=True)

    def report(self, progress: Progress) -> None:
        """Say how many scores came from the cache, if any did."""
        if self.reused:
            total = self.reused + self.computed
            progress.say(f"{self.reused:,} of {total:,} scores came from the cache")

    def _sweep(self, directory: Path) -> None:
        """Remove, once, what killed processes left unfinished there."""
        if directory in self._swept:
            return
        self._swept.add(directory)
        for left in directory.glob(".*"):
            with suppress(FileNotFoundError):  # another process has just finished it
                if time.time() - left.stat().st_mtime > STALE:
                    left.unlink()

    def _path(self, model: str, piece: str) -> Path:
        return self.directory / model[:16] / piece


def _digest(scores: bytes) -> bytes:
    return hashlib.blake2b(scores, digest_size=DIGEST).digest()
