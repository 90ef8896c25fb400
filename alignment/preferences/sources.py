"""From files to records: JSON lines, JSON arrays, parquet and `datasets`, streamed.

A record is a line or row number from 1, the parsed JSON object or the `RowError` that says why
there is none, and the bytes it came from where there are any. Damage to one row is that row's
error; damage to the file as a whole (a broken archive, a size beyond the bound) is a `DataError`.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from alignment.errors import DataError
from alignment.preferences.json_array import NotAnArrayError, elements
from alignment.preferences.rows import RowError
from alignment.preferences.tables import dataset_rows, parquet_rows
from alignment.utils.files import sha256_file

BLOCK = 1 << 20
MAX_LINE = 64 << 20  # one row of this size is no row
MAX_RATIO = 200  # times its size to which text may unpack; real preferences reach 10
SMALL = 64 << 20  # bytes up to which the ratio is nobody's concern
ENDINGS = (".jsonl", ".ndjson", ".json", ".parquet", ".gz")
FOREIGN = {
    b"PK\x03\x04": "a zip archive or an Excel sheet",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"\x80\x04\x95": "a pickle",
    b"\x80\x05\x95": "a pickle",
}
"""What people send by mistake, by its first bytes."""
UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".download", "~")


class Record(NamedTuple):
    """One row of a file."""

    line: int
    value: dict[str, Any] | RowError
    raw: bytes | None


@dataclass(frozen=True)
class Source:
    """One file, dataset directory or hub dataset of a delivery."""

    name: str
    """Name to show: the file's name, never a path of this machine."""
    path: Path
    kind: str
    """`text`, `parquet`, `dataset` (saved by `datasets`) or `hub`."""
    digest: str
    """sha256 of the file's bytes, or of a directory's files."""
    size: int


def find_sources(paths: Iterable[str | Path]) -> list[Source]:
    """The sources behind paths: directories are looked through for files, by name.

    Raises:
        DataError: nothing there, an empty directory, or a file that cannot be read.
    """
    found: list[Source] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            found += _in_directory(path)
        elif path.is_file():
            found.append(_file(path))
        elif _looks_like_hub(str(given)):
            found.append(Source(str(given), path, "hub", _name_digest(str(given)), 0))
        else:
            raise DataError(f"no file or directory {path}", where=str(path))
    if not found:
        raise DataError("no files were given", remedy="name one or more files of preferences")
    return found


def complete_files(directory: Path) -> list[Path]:
    """Files and dataset directories in `directory` that are not still being written, by name."""
    return sorted(
        path
        for path in directory.iterdir()
        if not path.name.startswith((".", "_")) and not path.name.endswith(UNFINISHED)
    )


def records(source: Source, max_bytes: int) -> Iterator[Record]:
    """The rows of a source, in order.

    Raises:
        DataError: a broken archive, a file larger than `max_bytes` when unpacked, a binary file.
    """
    if source.kind == "text":
        yield from _text(source, max_bytes)
        return
    if source.kind == "parquet":
        values = parquet_rows(source.path, source.name, max_bytes)
    else:
        values = dataset_rows(source.path, source.name, saved=source.kind == "dataset")
    for number, value in enumerate(values, 1):
        yield Record(number, value, None)


def _in_directory(path: Path) -> list[Source]:
    if (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.relative_to(path)}\0{sha256_file(file)}\0".encode())
        size = sum(file.stat().st_size for file in files)
        return [Source(path.name, path, "dataset", digest.hexdigest(), size)]
    files = [file for file in complete_files(path) if file.name.endswith(ENDINGS)]
    if not files:
        raise DataError(
            "no file of preferences in this directory",
            where=str(path),
            remedy=f"files must end with {', '.join(ENDINGS)}",
        )
    return [_file(file) for file in files]


def _file(path: Path) -> Source:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        kind = "parquet" if magic == b"PAR1" else "text"
        return Source(path.name, path, kind, sha256_file(path), path.stat().st_size)
    except OSError as error:
        raise DataError(f"cannot read the file: {error.strerror}", where=str(path)) from error


def _looks_like_hub(name: str) -> bool:
    parts = name.split("/")
    if name.startswith((".", "/")) or name.endswith((*ENDINGS, ".csv")):
        return False  # a misspelt path
    return len(parts) == 2 and all(parts)


def _name_digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


# --- text ---------------------------------------------------------------------------------------


def _text(source: Source, max_bytes: int) -> Iterator[Record]:
    with source.path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        file: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
        blocks = _blocks(source, file, max_bytes)
        first = next(blocks, b"")
        for magic, what in FOREIGN.items():
            if first.startswith(magic):
                raise DataError(
                    f"the file is {what}",
                    where=source.name,
                    remedy="send JSON lines (gzip may be), a JSON array or parquet, text in UTF-8",
                )
        first = first.removeprefix(codecs.BOM_UTF8)
        blocks = _chain(first, blocks)
        if first.lstrip().startswith(b"["):
            yield from _array(source, blocks)
        else:
            yield from _lines(blocks)


def _blocks(source: Source, file: IO[bytes], max_bytes: int) -> Iterator[bytes]:
    total = 0
    while True:
        try:
            block = file.read(BLOCK)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"the compressed file is broken: {error}",
                where=source.name,
                remedy="fetch it again; nothing of it was taken in",
            ) from error
        if not block:
            return
        total += len(block)
        if total > max_bytes:
            raise DataError(
                f"the file unpacks to more than {max_bytes:,} bytes",
                where=source.name,
                remedy="split it, or raise intake.max_bytes",
            )
        if total > SMALL and total > MAX_RATIO * source.size:
            raise DataError(
                f"the file unpacks to more than {MAX_RATIO} times its size: no preferences do",
                where=source.name,
                remedy="look at what it holds; nothing of it was taken in",
            )
        yield block


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _lines(blocks: Iterator[bytes]) -> Iterator[Record]:
    number = 0
    pending: list[bytes] = []
    held = 0
    skipping = False
    for block in blocks:
        *whole, tail = block.split(b"\n")
        for line in whole:
            number += 1
            if pending:
                line = b"".join((*pending, line))
                pending, held = [], 0
            if skipping:
                skipping = False
                yield Record(number, RowError("line_too_long", "row", f"over {MAX_LINE:,}"), None)
            elif line and not line.isspace():
                yield _parse(number, line)
        if skipping:
            continue
        pending.append(tail)
        held += len(tail)
        if held > MAX_LINE:  # forget the rest of this line instead of filling the memory with it
            pending, held, skipping = [], 0, True
    last = b"".join(pending)
    if skipping:
        yield Record(number + 1, RowError("line_too_long", "row", f"over {MAX_LINE:,}"), None)
    elif last and not last.isspace():
        yield _parse(number + 1, last)


def _parse(number: int, line: bytes) -> Record:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Record(number, RowError("bad_utf8", "row", f"byte {error.start}"), line)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        return Record(number, RowError("not_json", "row", str(error)), line)
    if type(value) is not dict:
        return Record(number, RowError("not_json", "row", f"{type(value).__name__}"), line)
    return Record(number, value, line)


def _array(source: Source, blocks: Iterator[bytes]) -> Iterator[Record]:
    try:
        for number, value in enumerate(elements(blocks, MAX_LINE), 1):
            if type(value) is dict:
                yield Record(number, value, None)
            else:
                yield Record(number, RowError("not_json", "row", type(value).__name__), None)
    except NotAnArrayError as error:
        raise DataError(
            f"not a JSON array: {error}",
            where=source.name,
            remedy="fetch or export it again; nothing of it was taken in",
        ) from error
