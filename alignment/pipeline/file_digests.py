"""sha256 of files outside the workspace, each read once as long as it stays the same.

Models have files of many gigabytes, and every command asks whether they changed. A digest is known
by what the file system says of the file: device, inode, size and both times. Every change of a
file, also one with its time set back, changes one of these. A large file's is kept in the
workspace, a small one's in this process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from functools import cache
from pathlib import Path

from alignment.utils.files import atomic_write_json, read_json, sha256_file

log = logging.getLogger("alignment")

LARGE = 64 * 2**20
"""Bytes; the digests of larger files are kept."""
_FILE = "cache/file-digests.json"
_END = 2**20
_RECENT = 2e9  # nanoseconds: a file changed so lately may change again within one tick of its time


def file_digest(path: Path, workspace: Path) -> str:
    """sha256 (hex) of the whole file."""
    status = path.stat()
    name = _identity(status)
    if status.st_size <= LARGE:
        return sha256_file(path) if _is_recent(status) else _small(path, name)
    known = _kept(workspace)
    if name not in known:
        gigabytes = status.st_size / 1e9
        log.info("reading %s to see whether it changed (%.1f GB, once)", path, gigabytes)
        digest = sha256_file(path)
        after = path.stat()
        if _identity(after) != name or _is_recent(after):
            return digest  # being written: asked again next time
        known = {**_kept(workspace), name: digest}
        # No workspace yet, a full or read-only disk: it is only read again.
        with contextlib.suppress(OSError):
            if workspace.is_dir():
                (workspace / _FILE).parent.mkdir(exist_ok=True)
                atomic_write_json(workspace / _FILE, known)
    return known[name]


def digest_of_0_1(path: Path) -> str:
    """What 0.1 recorded for a file: of a large one only its size and its two ends."""
    size = path.stat().st_size
    if size <= LARGE:
        return sha256_file(path)
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_END))
        file.seek(-_END, 2)
        digest.update(file.read(_END))
    return digest.hexdigest()


@cache
def _small(path: Path, _identity: str) -> str:
    return sha256_file(path)


def _is_recent(status: os.stat_result) -> bool:
    return time.time_ns() - status.st_ctime_ns < _RECENT


def _identity(status: os.stat_result) -> str:
    values = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    return ":".join(map(str, values))


def _kept(workspace: Path) -> dict[str, str]:
    try:
        known = read_json(workspace / _FILE)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        return {}
    return known if isinstance(known, dict) else {}
