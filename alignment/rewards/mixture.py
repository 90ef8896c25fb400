"""Chooses the comparisons that a reward model learns from: Llama 2's mixtures, drawn by seed.

Helpfulness RM: all own helpfulness comparisons and an equal number of the rest, drawn evenly from
own safety and open ones of both domains. Safety RM: all safety comparisons, own and open, mixed
90/10 with helpfulness ones, own and open, which the paper found to help most where both answers are
safe (§3.2.2). Without open data the first rest would be safety alone; see `MixtureConfig`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alignment.config.rewards import MixtureConfig
from alignment.config.vocabulary import Domain, Origin
from alignment.utils.json_lines import write_jsonl
from alignment.utils.seeds import derive_seed

if TYPE_CHECKING:
    from alignment.preferences.schema import Comparison


@dataclass(frozen=True)
class Source:
    """A comparison and the batch that it belongs to."""

    batch: str
    comparison: Comparison
    origin: Origin = "own"


def is_core(domain: str, sources: Sequence[Source]) -> list[bool]:
    """Which comparisons a model learns from in any case.

    Of helpfulness they are the own ones; open ones only where there are no others, as when the
    paper's first reward models were made.
    """
    mine = [source.comparison.domain == domain for source in sources]
    own = [it and source.origin == "own" for it, source in zip(mine, sources, strict=True)]
    return own if domain == "helpfulness" and any(own) else mine


def mix(
    domain: Domain, sources: Sequence[Source], mixture: MixtureConfig, seed: int
) -> list[Source]:
    """The core of `domain` and a random part of the rest, in the order of `sources`.

    The rest is drawn without replacement, up to `mixture.rest`. Rankings are drawn whole: the pairs
    of one group stay together.
    """
    core = is_core(domain, sources)
    rest = [source for source, mine in zip(sources, core, strict=True) if not mine]
    open_ones = sum(source.origin == "open" for source in rest)
    target = mixture.rest(domain, sum(core), open_ones)
    groups: dict[str, list[int]] = {}
    for number, source in enumerate(sources):
        if not core[number]:
            group = source.comparison.group
            groups.setdefault(f"n{number}" if group is None else f"g{group}", []).append(number)
    generator = np.random.default_rng(derive_seed(seed, "mixture", domain))
    members = list(groups.values())
    chosen: set[int] = set()
    for place in generator.permutation(len(members)):
        if len(chosen) >= target:
            break
        chosen.update(members[place])
    return [source for number, source in enumerate(sources) if core[number] or number in chosen]


def write_mixture(path: Path, rows: Sequence[Source]) -> None:
    """Write a line per training row, in order: where it is from, what and how sure it is."""
    write_jsonl(
        path,
        (
            {
                "batch": row.batch,
                "origin": row.origin,
                "id": row.comparison.id,
                "domain": row.comparison.domain,
                "strength": row.comparison.strength,
            }
            for row in rows
        ),
    )
