"""The parquet schema of comparisons, with conversions from drafts and to comparisons."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import pyarrow as pa

from alignment.preferences.rows import By, Draft
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
        ("chosen_finished", pa.bool_()),
        ("rejected_version", _TEXT),
        ("rejected_temperature", pa.float64()),
        ("rejected_finished", pa.bool_()),
        ("annotator", _TEXT),
        ("group", _TEXT),
        ("votes", pa.list_(_TEXT)),
        ("category", _TEXT),
        ("source", pa.int16()),
        ("line", pa.int64()),
    ]
)
"""`source` is the position among the manifest's sources, `line` the row's line there. Batches of
before 0.2 have no `…_finished`."""

INDEX = pa.schema(
    [
        ("id", pa.uint64()),
        ("opening", pa.uint64()),
        ("safety", pa.bool_()),
        ("heldout", pa.bool_()),
    ],
    metadata={"openings": "plain"},
)
"""Columns of index.parquet, row by row beside the comparisons: for later batches and the split.
Without the metadata (before 0.2) openings told case and punctuation apart; see `conversations`."""

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
    values: dict[str, list[Any]] = {"source": sources, "line": lines}
    for side in ("chosen", "rejected"):
        producers = [getattr(draft, f"{side}_by") for draft in drafts]
        for name in By._fields:
            values[f"{side}_{name}"] = [getattr(by, name, None) for by in producers]
    columns = [_conversations([draft.turns for draft in drafts])]
    for field in list(SCHEMA)[1:]:
        if field.name not in values:
            values[field.name] = [getattr(draft, field.name) for draft in drafts]
        columns.append(pa.array(values[field.name], field.type))
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


def conversations(table: pa.Table) -> Iterator[list[tuple[str, str]]]:
    """The turns of each row of a table of `SCHEMA`, as (role, content) pairs."""
    for turns in table.column("conversation").to_pylist():
        yield [(turn["role"], turn["content"]) for turn in turns]


def comparisons(table: pa.Table) -> Iterator[Comparison]:
    """The rows of a table of `SCHEMA`. They were checked on arrival and are not checked again."""
    for batch in table.to_batches():
        columns: dict[str, list[Any]] = {
            name: batch.column(name).to_pylist()
            for name in SCHEMA.names[:-2]
            if name in batch.schema.names
        }
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            for side in ("chosen", "rejected"):
                by = {name: row.pop(f"{side}_{name}", True) for name in By._fields}
                row[f"{side}_by"] = (
                    None if by["version"] is None else Producer.model_construct(**by)
                )
            yield Comparison.model_construct(**row)
