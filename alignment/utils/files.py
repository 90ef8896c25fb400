"""Digests, and atomic writes that never leave half a file behind."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

from alignment.errors import DamagedError

MANIFEST = "manifest.json"
"""Name of the file that marks a directory as committed and lists its contents."""
RESTORE = "restore it from a copy"
_AT_ONCE = 8


def canonical_json(value: Any) -> str:
    """`value` as JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest_json(value: Any) -> str:
    """sha256 (hex) of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def sha256_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes, read in 1 MiB blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def fsync_tree(directory: Path) -> None:
    """Sync `directory` and everything below it to disk, so that it survives a power cut."""
    paths = [path for path in directory.rglob("*") if path.is_file() or path.is_dir()]
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # concurrent syncs share the disk's flushes
        list(pool.map(_fsync, [*paths, directory]))


def fsync_directory(path: Path) -> None:
    """Make a rename inside `path` survive a power cut."""
    _fsync(path)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def atomic_write_text(path: Path, text: str) -> None:
    """`atomic_write_bytes` for UTF-8 text."""
    atomic_write_bytes(path, text.encode())


def atomic_write_json(path: Path, value: Any) -> None:
    """`atomic_write_bytes` for JSON, indented, with keys in insertion order."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_object(path: Path, remedy: str = RESTORE) -> dict[str, Any]:
    """The object in a JSON file that we wrote.

    Raises:
        DamagedError: the file is gone, or holds something else, or numbers and texts that we never
            write.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text, parse_float=_finite, parse_constant=_not_written)
        if not isinstance(values, dict):
            raise ValueError(f"{type(values).__name__} in place of an object")
        canonical_json(values).encode()  # fails at half a character, which no file of ours can hold
    except (ValueError, RecursionError, FileNotFoundError) as error:
        message = f"the file is damaged: {error}"
        raise DamagedError(message, where=str(path), remedy=remedy) from None
    return values


def _finite(digits: str) -> float:
    value = float(digits)
    return value if math.isfinite(value) else _not_written(digits)


def _not_written(word: str) -> NoReturn:
    raise ValueError(f"{word} in place of a finite number")
