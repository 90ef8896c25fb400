"""Digests of a draft, and the search for duplicates and contradictions among earlier rows."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from alignment.preferences.rows import Draft, RowError
from alignment.preferences.schema import composed


class Identity(NamedTuple):
    """64-bit digests of one comparison."""

    own: int
    """The comparison; the first 16 hex digits of `Comparison.id`'s digest, as a number."""
    swapped: int
    """The same pair with the opposite verdict."""
    opening: int
    """Everything up to the first user turn. Conversations with the same opening stay on one side of
    the split: otherwise a training conversation could quote a held-out answer."""


def identify(draft: Draft) -> Identity:
    """Digests of a checked draft; `own` agrees with `schema.comparison_id`.

    Raises:
        RowError: a text holds a lone surrogate, which UTF-8 cannot encode.
    """
    domain, spoken, opening = draft.domain or "", [], ""
    for role, content in draft.turns:
        content = composed(content)
        spoken.append(f"{len(role)}:{role}{len(content)}:{content}")
        if not opening and role == "user":
            opening = "".join(spoken)
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
        opening_key(opening),
    )


def opening_key(opening: str) -> int:
    """64-bit digest of the framed turns of an opening. The salt makes it independent of all other
    hash splits."""
    data = opening.encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, salt=b"heldout").digest(), "big")


class SeenIds:
    """Ids of the comparisons of earlier batches and of the current one.

    Args:
        earlier: (n,) comparison ids of earlier batches, in any order.
    """

    def __init__(self, earlier: np.ndarray):
        # A sorted array of machine words: 8 bytes a row where a set of Python ints takes 70.
        self._earlier = array("Q", np.unique(earlier.astype(np.uint64)).tobytes())
        self._here: set[int] = set()

    def add(self, identity: Identity) -> None:
        """Add a comparison of the current batch.

        Raises:
            RowError: it, or its opposite, is known already.
        """
        here = self._here
        if identity.own in here:
            raise RowError("duplicate", "row")
        if self._is_earlier(identity.own):
            raise RowError("duplicate_earlier", "row")
        if identity.swapped in here:
            raise RowError(
                "conflict", "chosen", "the opposite verdict stands earlier in this batch"
            )
        if self._is_earlier(identity.swapped):
            raise RowError("conflict_earlier", "chosen", "the opposite verdict stands in a batch")
        here.add(identity.own)

    def _is_earlier(self, number: int) -> bool:
        earlier: Sequence[int] = self._earlier
        place = bisect_left(earlier, number)
        return place < len(earlier) and earlier[place] == number
