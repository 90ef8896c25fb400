"""The bag of best samples: the version's own, or the best of all versions (Llama 2, from V4 on).

Scores of different reward models are never mixed: samples of earlier versions are stored as text
and scored again with the newest models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alignment.errors import DataError
from alignment.sampling.selection import Candidate
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
    """The entries that the select stages of earlier versions stored, oldest version first.

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


def above_quantile(
    old: Sequence[Candidate], own_chosen: Sequence[Candidate], quantile: float
) -> list[Candidate]:
    """Old answers whose new reward reaches a quantile of the own chosen ones (0: all)."""
    if quantile == 0 or not own_chosen:
        return list(old)
    bar = float(np.quantile([candidate.reward for candidate in own_chosen], quantile))
    return [candidate for candidate in old if candidate.reward >= bar]


def shares(chosen: Sequence[Candidate]) -> dict[str, float]:
    """Share of the chosen answers by the version that wrote them."""
    counts = Counter(candidate.source_version for candidate in chosen)
    return {version: count / len(chosen) for version, count in sorted(counts.items())}
