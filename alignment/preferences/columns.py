"""Comparisons as parquet columns, and back."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import pyarrow as pa

from alignment.preferences.rows import Draft
from alignment.preferences.schema import Comparison, Producer

_TEXT = pa.string()
_MESSAGE = pa.struct([("role", _TEXT), ("content", _TEXT)])

SCHEMA = pa.schema(
    [
        ("conversation", pa.list_(_MESSAGE)),
        ("chosen", _TEXT),
        ("rejected", _TEXT),
        ("strength", _TEXT),
        ("domain", _TEXT),
        ("safety_bin", _TEXT),
        ("chosen_version", _TEXT),
        ("chosen_temperature", pa.float64()),
        ("rejected_version", _TEXT),
        ("rejected_temperature", pa.float64()),
        ("annotator", _TEXT),
        ("group", _TEXT),
        ("votes", pa.list_(_TEXT)),
        ("category", _TEXT),
        ("source", pa.int16()),
        ("line", pa.int64()),
    ]
)
"""`source` is the position among the manifest's sources, `line` the row's line there."""

INDEX = pa.schema(
    [("id", pa.uint64()), ("opening", pa.uint64()), ("safety", pa.bool_()), ("heldout", pa.bool_())]
)
"""Row by row beside the comparisons: what later batches and the split ask for."""

LOW_CARDINALITY = [
    "strength",
    "domain",
    "safety_bin",
    "chosen_version",
    "rejected_version",
    "annotator",
    "category",
]


def record_batch(drafts: list[Draft], sources: list[int], lines: list[int]) -> pa.RecordBatch:
    """Checked drafts as one record batch of `SCHEMA`."""
    chosen_by = [draft.chosen_by or (None, None) for draft in drafts]
    rejected_by = [draft.rejected_by or (None, None) for draft in drafts]
    columns = [
        _conversations([draft.turns for draft in drafts]),
        pa.array([draft.chosen for draft in drafts], _TEXT),
        pa.array([draft.rejected for draft in drafts], _TEXT),
        pa.array([draft.strength for draft in drafts], _TEXT),
        pa.array([draft.domain for draft in drafts], _TEXT),
        pa.array([draft.safety_bin for draft in drafts], _TEXT),
        pa.array([by[0] for by in chosen_by], _TEXT),
        pa.array([by[1] for by in chosen_by], pa.float64()),
        pa.array([by[0] for by in rejected_by], _TEXT),
        pa.array([by[1] for by in rejected_by], pa.float64()),
        pa.array([draft.annotator for draft in drafts], _TEXT),
        pa.array([draft.group for draft in drafts], _TEXT),
        pa.array([draft.votes for draft in drafts], pa.list_(_TEXT)),
        pa.array([draft.category for draft in drafts], _TEXT),
        pa.array(sources, pa.int16()),
        pa.array(lines, pa.int64()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _conversations(conversations: list[list[tuple[str, str]]]) -> pa.ListArray:
    # Flat arrays and offsets: several times faster than a list of dicts a row.
    offsets = [0]
    total = 0
    for turns in conversations:
        total += len(turns)
        offsets.append(total)
    flat = list(chain.from_iterable(conversations))
    roles = pa.array([turn[0] for turn in flat], _TEXT)
    contents = pa.array([turn[1] for turn in flat], _TEXT)
    messages = pa.StructArray.from_arrays([roles, contents], fields=list(_MESSAGE))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), messages)


def comparisons(table: pa.Table) -> Iterator[Comparison]:
    """The rows of a table of `SCHEMA`, which were checked when they were taken in."""
    for batch in table.to_batches():
        columns: dict[str, list[Any]] = {
            name: batch.column(name).to_pylist() for name in SCHEMA.names[:-2]
        }
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            for side in ("chosen", "rejected"):
                version = row.pop(f"{side}_version")
                temperature = row.pop(f"{side}_temperature")
                row[f"{side}_by"] = (
                    None
                    if version is None
                    else Producer.model_construct(version=version, temperature=temperature)
                )
            yield Comparison.model_construct(**row)
