"""JSON lines: the one reader and the one writer of all our files with a row a line.

Only a line feed ends a line. `str.splitlines` would also cut at the U+2028, U+2029 and U+0085 that
stand in real texts, for JSON leaves them as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from alignment.errors import DamagedError
from alignment.utils.files import atomic_write_text

Row = dict[str, Any]
_HALF = re.compile("[\ud800-\udfff]")


def json_line(row: Mapping[str, Any]) -> str:
    """`row` as a line, its line feed included. Only half characters, as servers may send them, are
    escaped: UTF-8 has none."""
    text = json.dumps(row, ensure_ascii=False)
    return _HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", text) + "\n"


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """`atomic_write_text` of rows, one a line."""
    atomic_write_text(path, "".join(map(json_line, rows)))


def read_jsonl(path: Path) -> list[Row]:
    """The rows of a file that was written whole; blank lines are passed over.

    Raises:
        DamagedError: a line is not a JSON object; names file and line.
    """
    return [_row(path, number, line) for number, line in _lines(path.read_bytes())]


def read_appended(path: Path) -> list[Row]:
    """The rows of a file that grows line by line; none where there is no such file yet.

    A last line without its line feed was cut off by the writer's death: it is no row.

    Raises:
        DamagedError: another line is not a JSON object. It is damage, and what follows is worth
            keeping; names file and line.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    whole = content[: content.rfind(b"\n") + 1]
    return [_row(path, number, line) for number, line in _lines(whole)]


def cut_tail(path: Path) -> None:
    """Remove a last line without its line feed, before more is appended to the file."""
    if path.is_file():
        with path.open("r+b") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)


def _lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield number, line


def _row(path: Path, number: int, line: bytes) -> Row:
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, number, str(error)) from None
    if not isinstance(row, dict):
        raise _damaged(path, number, f"{type(row).__name__} in place of an object")
    return row


def _damaged(path: Path, number: int, reason: str) -> DamagedError:
    return DamagedError(
        f"a line is not a JSON object: {reason}",
        where=f"{path}:{number}",
        remedy="restore the file from a copy, or remove it and let `align resume` make it again",
    )
