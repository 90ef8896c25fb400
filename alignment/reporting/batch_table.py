"""All batches of a store as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from alignment.preferences.store import Batch

if TYPE_CHECKING:
    from rich.table import Table


def batch_table(batches: Sequence[Batch]) -> Table:
    """One row a batch: where it came from, what became of its rows, which versions took it in."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=None if batches else "no batches yet")
    table.add_column("batch", no_wrap=True)
    table.add_column("files", overflow="fold")
    for name in ("read", "accepted", "quaran-\ntined", "dropped", "held\nout"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("taken\nin by", no_wrap=True)
    for batch in batches:
        rows = batch.manifest["rows"]
        table.add_row(
            batch.name,
            ", ".join(source["file"] for source in batch.manifest["sources"])
            + (" (open data)" if batch.data_origin == "open" else ""),
            *(f"{rows[name]:,}" for name in ("read", "accepted", "quarantined", "dropped")),
            f"{sum(batch.counts['heldout'].values()):,}",
            _taken(batch),
        )
    return table


def _taken(batch: Batch) -> str:
    versions = ", ".join(batch.versions) or "–"
    return versions if batch.withdrawal is None else f"[yellow]withdrawn[/] ({versions})"
