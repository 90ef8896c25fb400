"""One writer per workspace. The kernel frees the lock when the process dies, however it dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignment.errors import LockedError


@contextmanager
def workspace_lock(workspace: Path) -> Iterator[None]:
    """Hold `workspace` for writing.

    Raises:
        LockedError: another live process holds it; says who, since when and with which command.
    """
    path = workspace / "lock"
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _held(workspace) from None
        told = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "command": " ".join(["align", *sys.argv[1:]]),
        }
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(told).encode(), 0)
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def holder(workspace: Path) -> dict[str, Any] | None:
    """Who holds the workspace now, or None; never blocks."""
    path = workspace / "lock"
    if not path.exists():
        return None
    with path.open("rb") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                return dict(json.loads(file.read() or b"{}"))
            except json.JSONDecodeError:
                return {}
    return None


def refuse_if_held(workspace: Path) -> None:
    """Tell at once, before anything heavy is imported, that another process is at work.

    Raises:
        LockedError: the workspace is held.
    """
    if holder(workspace) is not None:
        raise _held(workspace)


def _held(workspace: Path) -> LockedError:
    who = holder(workspace) or {}
    said = ", ".join(f"{key} {who[key]}" for key in ("pid", "host", "since") if key in who)
    command = f" ({who['command']})" if who.get("command") else ""
    return LockedError(
        f"another process is working on this workspace: {said or 'unknown'}{command}",
        where=str(workspace),
        remedy="wait for it, or stop it: its finished stages are kept, the rest resumes",
    )
