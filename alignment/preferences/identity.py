"""Digests of a draft, and the search for rows with the same."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from alignment.preferences.rows import Draft, RowError
from alignment.preferences.schema import composed, framed, opening_of


class Identity(NamedTuple):
    """64-bit digests of one comparison."""

    own: int
    """The comparison; the first 16 hex digits of `Comparison.id`'s digest, as a number."""
    swapped: int
    """The same pair with the opposite verdict."""
    opening: int
    """Everything up to the first user turn, without case and punctuation. Conversations with the
    same opening stay on one side of the split: otherwise a training conversation could quote a
    held-out answer."""


def identify(draft: Draft) -> Identity:
    """Digests of a checked draft; `own` agrees with `schema.comparison_id`.

    Raises:
        RowError: a text holds a lone surrogate, which UTF-8 cannot encode.
    """
    domain, spoken = draft.domain or "", []
    for role, content in draft.turns:
        content = composed(content)
        spoken.append(f"{len(role)}:{role}{len(content)}:{content}")
    chosen, rejected = composed(draft.chosen), composed(draft.rejected)
    before = f"{len(domain)}:{domain}{''.join(spoken)}"
    try:
        prefix = hashlib.sha256(before.encode())
        first = f"{len(chosen)}:{chosen}".encode()
        second = f"{len(rejected)}:{rejected}".encode()
    except UnicodeEncodeError as error:
        raise RowError("bad_utf8", "row", f"lone surrogate {error.object[error.start]!r}") from None
    swapped = prefix.copy()
    prefix.update(first + second)
    swapped.update(second + first)
    return Identity(
        int.from_bytes(prefix.digest()[:8], "big"),
        int.from_bytes(swapped.digest()[:8], "big"),
        opening_key(draft.turns),
    )


def opening_key(turns: Iterable[tuple[str, str]]) -> int:
    """64-bit digest of the opening of a conversation, given as (role, content) pairs. The salt
    makes it independent of all other hash splits."""
    data = framed(*opening_of(turns)).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, salt=b"heldout").digest(), "big")


class Rows:
    """Rows by the ids of their comparisons.

    Args:
        ids: (n,) in the order of the rows.
    """

    def __init__(self, ids: np.ndarray):
        # Sorted machine words: 16 bytes a row where a dictionary takes 150.
        order = np.argsort(ids, kind="stable")
        self._ids = array("Q", ids.astype(np.uint64)[order].tobytes())
        self._rows = array("q", order.astype(np.int64).tobytes())

    def find(self, id: int) -> Sequence[int]:
        """The rows with this id, the first one first."""
        ids: Sequence[int] = self._ids
        begin = bisect_left(ids, id)
        if begin == len(ids) or ids[begin] != id:
            return ()
        return self._rows[begin : bisect_right(ids, id)]
