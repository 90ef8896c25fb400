"""Which held-out comparisons are measured where there are more than need be."""

from __future__ import annotations

from collections.abc import Sequence

from alignment.preferences.schema import framed, opening
from alignment.rewards.mixture import Source
from alignment.utils.seeds import derive_seed


def sampled(sources: Sequence[Source], most: int, label: str) -> list[Source]:
    """At most `most` comparisons at random, in the order of `sources`; all if they are no more.

    Openings are drawn whole, in the order of a hash of `label` and opening, because intervals
    resample openings; only the last one may be cut. A delivery is often sorted, by annotator or by
    topic, so its first rows would stand for these alone. The same in every version, so that scores
    of earlier models are found in the cache.
    """
    if len(sources) <= most:
        return list(sources)
    rank = {
        number: (
            derive_seed(label, framed(*opening(source.comparison.conversation))),
            derive_seed(label, source.comparison.id),
            number,
        )
        for number, source in enumerate(sources)
    }
    return [sources[number] for number in sorted(sorted(rank, key=rank.__getitem__)[:most])]
