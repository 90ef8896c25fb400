"""Which preferences each version learned from, read from its intake stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignment.config.vocabulary import version_order
from alignment.utils.files import read_json


@dataclass(frozen=True)
class BatchUse:
    """A batch, and the version that was the first to learn from it."""

    version: str
    id: str
    digest: str
    training: int
    """Comparisons of it that reward models learn from."""
    heldout: int
    """Comparisons of it that they are measured on."""
    safety_share: float
    """Of all of them."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def batches_of(directory: Path) -> list[BatchUse]:
    """The batches in the outputs of an intake stage."""
    values = read_json(directory / "batch.json")
    uses = []
    for batch in values["batches"]:
        counts = batch["counts"]
        training, heldout = (sum(counts[side].values()) for side in ("training", "heldout"))
        safety = sum(counts[side].get("safety", 0) for side in ("training", "heldout"))
        uses.append(
            BatchUse(
                values["version"],
                batch["id"],
                batch["digest"],
                training,
                heldout,
                safety / max(1, training + heldout),
            )
        )
    return uses


def batches(stages: Mapping[str, Mapping[str, Path]]) -> list[BatchUse]:
    """Those of all versions, in order."""
    return [
        batch
        for version in sorted(stages, key=version_order)
        if "intake" in stages[version]
        for batch in batches_of(stages[version]["intake"])
    ]


def learned_from(uses: list[BatchUse], version: str) -> list[BatchUse]:
    """What `version` learned from: its own batches and all earlier ones."""
    return [batch for batch in uses if version_order(batch.version) <= version_order(version)]


def in_words(uses: list[BatchUse]) -> str:
    """`2 batches, 2,160 comparisons (a2ee40ef1b76, 0563363dc51c)`, or `no batch`."""
    if not uses:
        return "no batch of preferences"
    many = f"{len(uses)} batches" if len(uses) > 1 else "1 batch"
    ids = ", ".join(batch.id for batch in uses)
    return f"{many}, {sum(batch.training for batch in uses):,} comparisons ({ids})"
