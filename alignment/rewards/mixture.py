"""Which comparisons a reward model learns from: Llama 2's mixtures, drawn by seed, written down.

Helpfulness RM: all helpfulness comparisons and an equal part of the rest. Safety RM: all safety
comparisons mixed 90/10 with helpfulness ones, which the paper found to help most where both
answers are safe (§3.2.2).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alignment.config.rewards import MixtureConfig
from alignment.utils.files import atomic_write_text
from alignment.utils.seeds import derive_seed

if TYPE_CHECKING:
    from alignment.preferences.schema import Comparison


@dataclass(frozen=True)
class Source:
    """A comparison and the batch it came with."""

    batch: str
    comparison: Comparison


def wanted_rest(domain: str, own: int, mixture: MixtureConfig) -> int:
    """How many comparisons of the other domain a recipe asks for beside `own` of its own."""
    if domain == "helpfulness":
        return round(mixture.helpfulness_rest * own)
    return round(own * (1.0 - mixture.safety_share) / mixture.safety_share)


def mix(domain: str, sources: Sequence[Source], mixture: MixtureConfig, seed: int) -> list[Source]:
    """All of `domain`, and the wanted part of the rest drawn without replacement, in the order
    of `sources`. Rankings are drawn whole: pairs of one group never part.

    Where there is less of the rest than wanted, all of it is taken.
    """
    own = [source for source in sources if source.comparison.domain == domain]
    wanted = wanted_rest(domain, len(own), mixture)
    groups: dict[str, list[int]] = {}
    for number, source in enumerate(sources):
        if source.comparison.domain != domain:
            group = source.comparison.group
            groups.setdefault(f"n{number}" if group is None else f"g{group}", []).append(number)
    generator = np.random.default_rng(derive_seed(seed, "mixture", domain))
    members = list(groups.values())
    taken: set[int] = set()
    for place in generator.permutation(len(members)):
        if len(taken) >= wanted:
            break
        taken.update(members[place])
    return [
        source
        for number, source in enumerate(sources)
        if source.comparison.domain == domain or number in taken
    ]


def write_mixture(path: Path, rows: Sequence[Source]) -> None:
    """One line per training row: batch, comparison id and domain, in order."""
    lines = [
        json.dumps(
            {
                "batch": row.batch,
                "id": row.comparison.id,
                "domain": row.comparison.domain,
                "strength": row.comparison.strength,
            }
        )
        for row in rows
    ]
    atomic_write_text(path, "".join(f"{line}\n" for line in lines))
