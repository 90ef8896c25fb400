"""The split of a batch into training and held-out comparisons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class EarlierSplit:
    """Openings whose side earlier batches have fixed for good.

    Attributes:
        openings: (m,) sorted and unique.
        heldout: (m,) whether the opening is held out.
    """

    openings: np.ndarray
    heldout: np.ndarray

    @classmethod
    def of(cls, openings: np.ndarray, heldout: np.ndarray) -> EarlierSplit:
        """Build it from index columns (n,) of earlier batches. An opening on both sides, as batches
        of before 0.2 can have it in two spellings, is held out."""
        unique, place = np.unique(openings.astype(np.uint64), return_inverse=True)
        held = np.zeros(len(unique), dtype=bool)
        held[place[heldout.astype(bool)]] = True
        return cls(unique, held)

    def look_up(self, openings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Masks (n,) of `openings`: in an earlier batch, and held out there."""
        if len(self.openings) == 0:
            nothing = np.zeros(len(openings), dtype=bool)
            return nothing, nothing.copy()
        place = np.minimum(np.searchsorted(self.openings, openings), len(self.openings) - 1)
        is_earlier = self.openings[place] == openings
        return is_earlier, is_earlier & self.heldout[place]


def split(
    openings: np.ndarray, safety: np.ndarray, earlier: EarlierSplit, *, rows: int, share: float
) -> np.ndarray:
    """Mask (n,) of the comparisons to hold out.

    An opening of an earlier batch keeps its side, so that no prompt is ever on both sides. In each
    domain, the new openings with the lowest hash are held out until the domain has its share. All
    comparisons of an opening stay together, so counts are exact except for repeated openings.

    Args:
        openings: (n,) opening of each comparison.
        safety: (n,) whether it is a safety comparison.
        earlier: sides fixed by earlier batches.
        rows: number of comparisons to hold out.
        share: upper bound on the held-out share of the batch.
    """
    total = len(openings)
    is_earlier, heldout = earlier.look_up(openings)
    target = min(rows, int(share * total + 0.5))
    for domain in (False, True):
        mine = safety == domain
        quota = int(target * mine.sum() / max(total, 1) + 0.5) - int((heldout & mine).sum())
        # An opening that the first domain has just placed keeps that side here too.
        free = mine & ~is_earlier
        if domain:
            settled = np.isin(openings, openings[~safety])
            heldout |= free & np.isin(openings, openings[~safety & heldout])
            quota -= int((heldout & free).sum())
            free &= ~settled
        chosen = _lowest(openings[free], quota)
        heldout |= free & np.isin(openings, chosen)
    return heldout


def _lowest(openings: np.ndarray, rows: int) -> list[np.uint64]:
    """Openings with the lowest hash that have `rows` rows in all; larger ones are skipped."""
    unique, counts = np.unique(openings, return_counts=True)
    picked = []
    for opening, count in zip(unique, counts, strict=True):
        if rows <= 0:
            break
        if count <= rows:
            picked.append(opening)
            rows -= int(count)
    return picked
