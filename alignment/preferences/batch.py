"""One accepted batch, as its manifest tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.utils.files import read_json


@dataclass(frozen=True)
class Batch:
    """One accepted batch."""

    id: str
    """12 hex digits of the delivery's digest: the same delivery has the same id everywhere."""
    sequence: int
    """Order of arrival in this store, from 1."""
    directory: Path
    manifest: dict[str, Any]
    versions: tuple[str, ...] = ()
    """Versions that took it in."""

    @property
    def name(self) -> str:
        """Name of its directory: `0003-1f0c2a9b7d4e`."""
        return self.directory.name

    @property
    def digest(self) -> str:
        """sha256 of the comparisons and of their split."""
        return str(self.manifest["digest"])

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """`training` and `heldout` → domain → comparisons."""
        return dict(self.manifest["counts"])

    @property
    def report(self) -> dict[str, Any]:
        """The batch report, as it was written on arrival."""
        return dict(read_json(self.directory / "report.json"))

    def to_dict(self) -> dict[str, Any]:
        """For `align batches --json`."""
        kept = ("id", "sequence", "arrived", "origin", "sources", "rows", "counts", "digest")
        return {key: self.manifest[key] for key in kept} | {
            "name": self.name,
            "versions": list(self.versions),
        }
