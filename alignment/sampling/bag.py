"""The bag of best samples: the version's own, or the best of all versions (Llama 2, from V4 on).

Scores of different reward models are never mixed: samples of earlier versions are stored as text
and scored again with the newest models.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignment.config.sampling import SelectConfig
from alignment.config.vocabulary import DOMAINS
from alignment.errors import DataError
from alignment.sampling.selection import Candidate, Selection, select
from alignment.utils.json_lines import read_jsonl, write_jsonl

BAG_FILE = "kept.jsonl"


@dataclass(frozen=True)
class BagEntry:
    """An answer that a version stores for later bags, without scores, which would be stale."""

    prompt_id: str
    text: str
    finished: bool
    tokens: int
    source_version: str


def best_entries(
    groups: Mapping[str, Sequence[Candidate]], per_prompt: int, own: str
) -> list[BagEntry]:
    """The best `per_prompt` eligible answers of each prompt that version `own` wrote."""
    entries = []
    for group in groups.values():
        ours = [candidate for candidate in group if candidate.source_version == own]
        entries += [
            BagEntry(c.prompt_id, c.text, c.finished, c.tokens, own) for c in ours[:per_prompt]
        ]
    return entries


def write_bag(path: Path, entries: Iterable[BagEntry]) -> None:
    """Write entries as JSON lines."""
    write_jsonl(path, map(vars, entries))


def read_bag(directories: Mapping[str, Path]) -> list[BagEntry]:
    """The entries that the select stages of earlier versions stored.

    Raises:
        DataError: a directory holds no bag.
    """
    bag = []
    for version, directory in sorted(directories.items()):
        path = directory / BAG_FILE
        if not path.is_file():
            raise DataError(f"{version} stored no samples for the bag", where=str(path))
        bag += [BagEntry(**row) for row in read_jsonl(path)]
    return bag


def admitted(
    old: Sequence[Candidate], own_chosen: Sequence[Candidate], config: SelectConfig
) -> list[Candidate]:
    """The older answers that may compete: top samples, and not too many (Llama 2 §3.2.3).

    Within each domain, because the rewards of the two have different means: those whose new reward
    reaches `bag_quantile` of the own chosen answers' rewards, and of these the best, as many as
    keep the older answers' share at `bag_share` if they displace none. Different prompts come
    first, then second answers to a prompt.

    Args:
        old: answers of earlier versions, scored by the newest models.
        own_chosen: what this version's own samples alone would give.
    """
    found: list[Candidate] = []
    for domain in DOMAINS:
        own = [candidate.reward for candidate in own_chosen if candidate.domain == domain]
        if not own:
            continue
        bar = float(np.quantile(own, config.bag_quantile))
        good = [c for c in old if c.domain == domain and c.reward >= bar]
        good.sort(key=lambda c: (-c.reward, c.tokens, c.text, c.source_version))
        seen: Counter[str] = Counter()
        ranked = []
        for candidate in good:
            ranked.append((seen[candidate.prompt_id], candidate))
            seen[candidate.prompt_id] += 1
        ranked.sort(key=lambda item: item[0])  # stable: best first within each rank
        room = int(config.bag_share * len(own) / (1 - config.bag_share) + 1e-9)
        found += [candidate for _, candidate in ranked[:room]]
    return found


def select_with(
    older: Sequence[Candidate], own: Sequence[Candidate], config: SelectConfig, seed: int
) -> tuple[Selection, list[Candidate]]:
    """The choice among own answers and older ones, and the older ones that competed for it.

    Older answers displace own ones, on the same prompt or by a higher bar. So the worst of those
    chosen are taken out until no domain has more than `bag_share` of them.
    """
    mine, competing = {_name(candidate) for candidate in own}, list(older)
    while True:
        selection = select([*own, *competing], config, seed)
        surplus: set[tuple[str, str]] = set()
        for domain in DOMAINS:
            chosen = [c for c in selection.chosen if c.domain == domain]
            guests = sorted((c for c in chosen if _name(c) not in mine), key=lambda c: c.reward)
            # As many as would do if each made room for an own one; if not, there is a next round.
            over = math.ceil(len(guests) - config.bag_share * len(chosen) - 1e-9)
            surplus |= {_name(candidate) for candidate in guests[: max(0, over)]}
        if not surplus:
            return selection, competing
        competing = [candidate for candidate in competing if _name(candidate) not in surplus]


def _name(candidate: Candidate) -> tuple[str, str]:
    return candidate.prompt_id, candidate.text


def shares(chosen: Sequence[Candidate]) -> dict[str, float]:
    """Share of the chosen answers by the version that wrote them."""
    counts = Counter(candidate.source_version for candidate in chosen)
    return {version: count / len(chosen) for version, count in sorted(counts.items())}


def mean_rewards(chosen: Sequence[Candidate]) -> dict[str, float]:
    """Mean combined reward of the chosen answers by the version that wrote them."""
    return {
        version: float(np.mean([c.reward for c in chosen if c.source_version == version]))
        for version in shares(chosen)
    }
