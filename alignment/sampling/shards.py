"""Stores the parts of a long sampling run on disk, so that a restart does not repeat them.

Several processes each draw whole shards (`claim`), so that the bits of a shard do not depend on
their number.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alignment.inference.types import Sample
from alignment.utils import distributed
from alignment.utils.files import atomic_write_json, digest_json, fsync_directory, read_json

SCHEMA = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("k", pa.int32()),
        ("text", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("finished", pa.bool_()),
        ("temperature", pa.float64()),
        ("version", pa.string()),
    ]
)
"""Columns of samples.parquet."""


class Shards:
    """Numbered tables of one sampling request.

    Args:
        directory: survives the process.
        request: everything that decides the content; shards of any other request are deleted.
    """

    def __init__(self, directory: Path, request: Any):
        self._directory = directory
        digest = digest_json(request)
        stamp = directory / "request.json"
        if distributed.is_first() and (not stamp.is_file() or read_json(stamp) != digest):
            shutil.rmtree(directory, ignore_errors=True)
            atomic_write_json(stamp, digest)
        distributed.barrier()

    def claim(self, count: int) -> Sequence[int]:
        """Of `count` shards those that this process is to write; `wait` for the others' then."""
        return distributed.claim(range(count), self.has)

    def wait(self) -> None:
        """Wait until all processes have written what they claimed."""
        distributed.barrier()

    def has(self, number: int) -> bool:
        """Whether shard `number` is complete."""
        return self._path(number).is_file()

    def write(self, number: int, table: pa.Table) -> None:
        """Write shard `number` atomically."""
        write_table(self._path(number), table)

    def read(self, number: int) -> pa.Table:
        """Shard `number`."""
        return pq.read_table(self._path(number))

    def _path(self, number: int) -> Path:
        return self._directory / f"shard-{number:05d}.parquet"


def write_table(path: Path, table: pa.Table) -> None:
    """Write a parquet file atomically; equal tables give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    pq.write_table(table, temporary, compression="zstd")
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_directory(path.parent)


def to_table(
    prompt_ids: Sequence[str],
    samples: Sequence[Sequence[Sample]],
    temperature: float,
    version: str,
) -> pa.Table:
    """Samples as rows of `SCHEMA`, prompt by prompt."""
    rows = [
        {
            "prompt_id": name,
            "k": place,
            "text": sample.text,
            "token_ids": sample.token_ids,
            "logprobs": sample.logprobs,
            "finished": sample.finished,
            "temperature": temperature,
            "version": version,
        }
        for name, group in zip(prompt_ids, samples, strict=True)
        for place, sample in enumerate(group)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def from_table(table: pa.Table) -> list[list[Sample]]:
    """The samples of each prompt, in order; the inverse of `to_table`."""
    groups: list[list[Sample]] = []
    for row in table.to_pylist():
        if row["k"] == 0:
            groups.append([])
        groups[-1].append(Sample(row["token_ids"], row["logprobs"], row["finished"], row["text"]))
    return groups
