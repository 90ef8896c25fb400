"""Which comparisons of a batch are kept for measuring."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Sides:
    """Openings that earlier batches have put on a side for good; sorted and unique."""

    openings: np.ndarray
    heldout: np.ndarray

    @classmethod
    def of(cls, openings: np.ndarray, heldout: np.ndarray) -> Sides:
        """From the index columns of earlier batches."""
        unique, first = np.unique(openings.astype(np.uint64), return_index=True)
        return cls(unique, heldout.astype(bool)[first])

    def look_up(self, openings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(known, heldout) for each of `openings` (n,); heldout is False where unknown."""
        if len(self.openings) == 0:
            nothing = np.zeros(len(openings), dtype=bool)
            return nothing, nothing.copy()
        place = np.minimum(np.searchsorted(self.openings, openings), len(self.openings) - 1)
        known = self.openings[place] == openings
        return known, known & self.heldout[place]


def split(
    openings: np.ndarray, safety: np.ndarray, earlier: Sides, *, rows: int, share: float
) -> np.ndarray:
    """Mask (n,) of the held-out comparisons: `rows` of them, or `share` of a smaller batch.

    Openings (n,) that an earlier batch knows keep their side, so that one prompt never stands on
    both sides, now or later. Of the others, in each domain, those with the lowest hash are held
    out until the domain has its part; all comparisons of an opening go together. The count is
    exact up to openings that come several times.
    """
    total = len(openings)
    known, heldout = earlier.look_up(openings)
    target = min(rows, int(share * total + 0.5))
    for domain in (False, True):
        mine = safety == domain
        wanted = int(target * mine.sum() / max(total, 1) + 0.5) - int((heldout & mine).sum())
        # An opening that the other domain has already placed keeps that side too.
        free = mine & ~known
        if domain:
            settled = np.isin(openings, openings[~safety])
            heldout |= free & np.isin(openings, openings[~safety & heldout])
            wanted -= int((heldout & free).sum())
            free &= ~settled
        chosen = _lowest(openings[free], wanted)
        heldout |= free & np.isin(openings, chosen)
    return heldout


def _lowest(openings: np.ndarray, wanted: int) -> np.ndarray:
    """Openings with the lowest hash that together have `wanted` rows; one that would go beyond is
    passed over."""
    unique, counts = np.unique(openings, return_counts=True)
    taken = []
    for opening, count in zip(unique, counts, strict=True):
        if wanted <= 0:
            break
        if count <= wanted:
            taken.append(opening)
            wanted -= int(count)
    return np.array(taken, dtype=np.uint64)
