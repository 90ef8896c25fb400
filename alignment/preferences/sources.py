"""From files to records: JSON lines, JSON arrays, parquet and `datasets`, streamed.

A record has a line or row number from 1, the parsed JSON object or the `RowError` that says why
there is none, and the raw bytes of a text line. Damage to one row is a `RowError`. Damage to the
whole file (a broken archive, an excessive size) is a `DataError`.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, NamedTuple

from alignment.errors import DataError
from alignment.preferences.json_array import (
    NotAnArrayError,
    RepeatedKey,
    UniqueKeys,
    array_elements,
)
from alignment.preferences.rows import RowError
from alignment.preferences.tables import dataset_rows, parquet_rows
from alignment.utils.files import sha256_file
from alignment.utils.stand_ins import stand_in

BLOCK = 1 << 20
MAX_LINE = 64 << 20  # bytes of one row
MAX_RATIO = 200  # unpacked over packed size; real preferences reach 10
SMALL = 64 << 20  # unpacked bytes below which the ratio is not checked
ENDINGS = (".jsonl", ".ndjson", ".json", ".parquet", ".gz")
ACCEPTED_FILES = "send JSON lines (also gzipped), a JSON array or parquet; text must be UTF-8"
FOREIGN = {
    b"PK\x03\x04": "a zip archive or an Excel sheet",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"\x80\x04\x95": "a pickle",
    b"\x80\x05\x95": "a pickle",
    b"ARROW1": "an Arrow file, one part of a directory saved by `datasets`",
    b"SQLite format 3": "an SQLite database",
    b"<?xml": "an XML file",
}
"""First bytes → kind of file that people send by mistake."""
HUB_FILES = ("dataset_infos.json", "dataset_info.json", "state.json")
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
    """The sources at `paths`; a directory stands for its preference files, by name.

    `DIRECTORY:train` stands for those of one part of a data set, as `owner/name:train` does on the
    hub.

    Raises:
        DataError: a missing path, an empty directory, or an unreadable file.
    """
    sources: list[Source] = []
    for argument in paths:
        path, part = part_of(argument)
        if path.is_dir():
            sources += _in_directory(path, part)
        elif path.is_file():
            sources.append(_file(path))
        elif _looks_like_hub(str(argument)):
            digest = hashlib.sha256(str(argument).encode()).hexdigest()
            sources.append(Source(str(argument), path, "hub", digest, 0))
        else:
            raise DataError(f"no file or directory {path}", where=str(path))
    if not sources:
        raise DataError("no files were given", remedy="name one or more files of preferences")
    return sources


def complete_files(directory: Path) -> list[Path]:
    """Files and dataset directories in `directory` whose names do not mark them as partial."""
    return sorted(
        path
        for path in directory.iterdir()
        if not path.name.startswith((".", "_")) and not path.name.endswith(UNFINISHED)
    )


def records(source: Source, max_bytes: int) -> Iterator[Record]:
    """The rows of a source, in order.

    Raises:
        DataError: a broken archive, more than `max_bytes` when unpacked, or a foreign file type.
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


def part_of(location: str | Path) -> tuple[Path, str | None]:
    """The path that a location names, and the part of the data set in that directory, if one is
    named: `data/hh:train`."""
    directory, _, part = str(location).rpartition(":")
    if part and directory and not Path(location).exists() and Path(directory).is_dir():
        return Path(directory), part
    return Path(location), None


def _in_directory(path: Path, part: str | None = None) -> list[Source]:
    if part is not None and (path / part).is_dir():
        return _in_directory(path / part)
    saved = (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists()
    if part is None and saved:
        files = sorted(file for file in path.rglob("*") if file.is_file())
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.relative_to(path)}\0{sha256_file(file)}\0".encode())
        size = sum(file.stat().st_size for file in files)
        return [Source(path.name, path, "dataset", digest.hexdigest(), size)]
    found = [file for file in complete_files(path) if file.name.endswith(ENDINGS)]
    files = found or _below(path)
    if not files:
        raise DataError(
            "no file of preferences in this directory or below it",
            where=str(path),
            remedy=f"files must end with {', '.join(ENDINGS)}",
        )
    if part is not None:
        return [_file(file) for file in _of_part(path, files, part)]
    _refuse_both_parts(path, files)
    return [_file(file) for file in files]


def _of_part(path: Path, files: Sequence[Path], part: str) -> list[Path]:
    """The files of one part, by their names or those of their directories.

    Raises:
        DataError: there are none.
    """
    found = [
        file
        for file in files
        if part in (_first_word(name) for name in file.relative_to(path).parts)
    ]
    if not found:
        words = {_first_word(name) for file in files for name in file.relative_to(path).parts}
        parts = sorted(word for word in words if split_of(word))
        raise DataError(
            f"no file in this directory is of the part {part!r}",
            where=str(path),
            remedy=f"its parts are {', '.join(parts) or 'not named'}",
        )
    return found


def _first_word(name: str) -> str:
    return re.split(r"[-_.]", name.lower())[0]


def _below(path: Path) -> list[Path]:
    """Files of preferences in sub-directories, as in a clone from the hub (`data/*.parquet`)."""
    return sorted(
        file
        for file in path.rglob("*")
        if file.is_file()
        and file.name.endswith(ENDINGS)
        and file.name not in HUB_FILES
        and not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
    )


def split_of(name: str) -> str | None:
    """`training` or `test`, if a split or a file of this name is that part of a data set."""
    word = _first_word(name)
    if word in ("train", "training"):
        return "training"
    return "test" if word in ("test", "validation", "valid", "val", "dev", "eval") else None


def _refuse_both_parts(path: Path, files: Sequence[Path]) -> None:
    """Refuse to pour a data set's test rows into a batch that is trained on.

    Raises:
        DataError: the files, or the directories they are in, are named after both parts.
    """
    parts: dict[str, str] = {}
    for file in files:
        relative = file.relative_to(path)
        for part in (relative.name, *relative.parts[:-1]):
            kind = split_of(part)
            if kind is not None:
                parts.setdefault(kind, str(relative))
    if len(parts) == 2:
        raise DataError(
            f"the directory holds the training and the test part of a data set: "
            f"{parts['training']}, {parts['test']}",
            where=str(path),
            remedy=f"name one part, as {path}:{_first_word(Path(parts['training']).name)}; a batch "
            "keeps its own rows for measuring",
        )


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


# --- text ---------------------------------------------------------------------------------------


def _text(source: Source, max_bytes: int) -> Iterator[Record]:
    with source.path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        file: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
        blocks = _blocks(source, file, max_bytes)
        first = next(blocks, b"")
        kinds = [
            (kind, ACCEPTED_FILES) for magic, kind in FOREIGN.items() if first.startswith(magic)
        ]
        for kind, remedy in filter(None, [stand_in(first), *kinds]):
            raise DataError(f"the file is {kind}, not the data", where=source.name, remedy=remedy)
        first = first.removeprefix(codecs.BOM_UTF8)
        if not first:
            raise DataError("the file is empty", where=source.name, remedy="fetch it again")
        blocks = chain([first], blocks)
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
                remedy="fetch it again; none of it was ingested",
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
                f"the file unpacks to more than {MAX_RATIO} times its size, which no real data do",
                where=source.name,
                remedy="inspect its contents; none of it was ingested",
            )
        yield block


def _lines(blocks: Iterator[bytes]) -> Iterator[Record]:
    keys = UniqueKeys()
    decoder = json.JSONDecoder(object_pairs_hook=keys)
    number = 0
    pending: list[bytes] = []
    pending_bytes = 0
    skipping = False
    for block in blocks:
        *whole, tail = block.split(b"\n")
        for line in whole:
            number += 1
            if pending:
                line = b"".join((*pending, line))
                pending, pending_bytes = [], 0
            if skipping:
                skipping = False
                yield Record(number, RowError("line_too_long", "row", f"over {MAX_LINE:,}"), None)
            elif line and not line.isspace():
                yield _parse(number, line, decoder, keys)
        if skipping:
            continue
        pending.append(tail)
        pending_bytes += len(tail)
        if pending_bytes > MAX_LINE:  # skip the rest of this huge line
            pending, pending_bytes, skipping = [], 0, True
    last = b"".join(pending)
    if skipping:
        yield Record(number + 1, RowError("line_too_long", "row", f"over {MAX_LINE:,}"), None)
    elif last and not last.isspace():
        yield _parse(number + 1, last, decoder, keys)


def _parse(number: int, line: bytes, decoder: json.JSONDecoder, keys: UniqueKeys) -> Record:
    keys.repeated = None
    try:
        value = decoder.decode(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Record(number, RowError("bad_utf8", "row", f"byte {error.start}"), line)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        return Record(number, RowError("not_json", "row", str(error)), line)
    if type(value) is not dict:
        return Record(number, RowError("not_json", "row", f"{type(value).__name__}"), line)
    if keys.repeated is not None:
        return Record(number, RowError("repeated_key", keys.repeated[:80]), line)
    return Record(number, value, line)


def _array(source: Source, blocks: Iterator[bytes]) -> Iterator[Record]:
    try:
        for number, value in enumerate(array_elements(blocks, MAX_LINE), 1):
            if isinstance(value, RepeatedKey):
                error = RowError("repeated_key", value.name[:80])
                yield Record(number, error, json.dumps(value.value).encode())
            elif type(value) is dict:
                yield Record(number, value, None)
            else:
                yield Record(number, RowError("not_json", "row", type(value).__name__), None)
    except NotAnArrayError as error:
        raise DataError(
            f"not a JSON array: {error}",
            where=source.name,
            remedy="fetch or export it again; none of it was ingested",
        ) from error
