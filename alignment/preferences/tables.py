"""Streams the rows of parquet files and of `datasets`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignment.errors import DataError
from alignment.preferences.rows import RowError

ROWS = 2000  # read at once

Row = dict[str, Any] | RowError
"""Column → value, or why the row cannot be read."""


def parquet_rows(path: Path, name: str, max_bytes: int) -> Iterator[Row]:
    """The rows of a parquet file.

    Raises:
        DataError: a broken file, or one that unpacks to more than `max_bytes`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        unpacked = sum(
            file.metadata.row_group(index).total_byte_size
            for index in range(file.metadata.num_row_groups)
        )
        if unpacked > max_bytes:
            raise DataError(
                f"the file unpacks to more than {max_bytes:,} bytes",
                where=name,
                remedy="split it, or raise intake.max_bytes",
            )
        for batch in file.iter_batches(batch_size=ROWS):
            yield from _rows(batch)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise DataError(f"the parquet file is broken: {error}", where=name) from error


def dataset_rows(path: Path, name: str, *, saved: bool) -> Iterator[Row]:
    """The rows of a dataset with one split.

    Args:
        saved: `path` is a directory written by `datasets`; else `name` is one on the hub, with its
            split behind a colon if it has several (`owner/name:train`).

    Raises:
        DataError: it cannot be loaded, or has several splits.
    """
    import datasets

    try:
        if saved:
            loaded = datasets.load_from_disk(str(path))
        else:
            hub_name, _, split = name.partition(":")
            loaded = datasets.load_dataset(hub_name, split=split or None)
    except Exception as error:  # the library raises many kinds, all about what was named
        raise DataError(
            f"cannot load the dataset: {type(error).__name__}: {error}",
            where=name,
            remedy=None if saved else "no such file either; a misspelt path?",
        ) from error
    if isinstance(loaded, dict) and len(loaded) > 1:
        splits = sorted(map(str, loaded))
        one = splits[-1] if "train" not in splits else "train"
        raise DataError(
            f"the dataset has {len(splits)} splits: {', '.join(splits)}",
            where=name,
            remedy=f"name one, its test rows must not be trained on: {name}{'/:'[not saved]}{one}",
        )
    for part in loaded.values() if isinstance(loaded, dict) else [loaded]:
        for table in part.with_format("arrow").iter(batch_size=ROWS):
            for batch in table.to_batches():  # several: files hold pieces of 1000 rows
                yield from _rows(batch)


def _rows(batch: Any) -> Iterator[Row]:
    try:
        yield from batch.to_pylist()
        return
    except UnicodeDecodeError:
        pass  # one cell of the batch is not text: find its row below
    for index in range(batch.num_rows):
        try:
            yield batch.slice(index, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            yield RowError("bad_utf8", "row", f"byte {error.start} of a cell")
