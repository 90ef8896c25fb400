"""Chooses the comparisons that a reward model learns from: Llama 2's mixtures, drawn by seed.

Helpfulness RM: all helpfulness comparisons and an equal number of others. Safety RM: all safety
comparisons mixed 90/10 with helpfulness ones, which the paper found to help most where both
answers are safe (§3.2.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alignment.config.rewards import MixtureConfig
from alignment.utils.json_lines import write_jsonl
from alignment.utils.seeds import derive_seed

if TYPE_CHECKING:
    from alignment.preferences.schema import Comparison


@dataclass(frozen=True)
class Source:
    """A comparison and the batch that it belongs to."""

    batch: str
    comparison: Comparison


def rest_size(domain: str, own: int, mixture: MixtureConfig) -> int:
    """How many comparisons of the other domain are mixed with `own` of the model's own."""
    if domain == "helpfulness":
        return round(mixture.helpfulness_rest * own)
    return round(own * (1.0 - mixture.safety_share) / mixture.safety_share)


def mix(domain: str, sources: Sequence[Source], mixture: MixtureConfig, seed: int) -> list[Source]:
    """All comparisons of `domain` and a random part of the rest, in the order of `sources`.

    The rest is drawn without replacement, up to `rest_size`. Rankings are drawn whole: the pairs of
    one group stay together.
    """
    own = [source for source in sources if source.comparison.domain == domain]
    target = rest_size(domain, len(own), mixture)
    groups: dict[str, list[int]] = {}
    for number, source in enumerate(sources):
        if source.comparison.domain != domain:
            group = source.comparison.group
            groups.setdefault(f"n{number}" if group is None else f"g{group}", []).append(number)
    generator = np.random.default_rng(derive_seed(seed, "mixture", domain))
    members = list(groups.values())
    chosen: set[int] = set()
    for place in generator.permutation(len(members)):
        if len(chosen) >= target:
            break
        chosen.update(members[place])
    return [
        source
        for number, source in enumerate(sources)
        if source.comparison.domain == domain or number in chosen
    ]


def write_mixture(path: Path, rows: Sequence[Source]) -> None:
    """Write a line per training row: batch, comparison id, domain and strength, in order."""
    write_jsonl(
        path,
        (
            {
                "batch": row.batch,
                "id": row.comparison.id,
                "domain": row.comparison.domain,
                "strength": row.comparison.strength,
            }
            for row in rows
        ),
    )
