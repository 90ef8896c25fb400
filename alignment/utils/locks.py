"""Locks on files, and one writer per workspace. The kernel frees a lock when its process dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignment.errors import LockedError

LOOK_EVERY = 0.05  # seconds


@contextmanager
def file_lock(
    path: Path,
    *,
    patience: float = 0.0,
    busy: Callable[[], Exception],
    waits: Callable[[], None] = lambda: None,
) -> Iterator[int]:
    """Hold the exclusive lock on `path`, created if missing; yields its file descriptor.

    Args:
        patience: seconds to wait while somebody else holds the lock.
        busy: makes the error to raise if somebody still holds it then.
        waits: called once if somebody else holds it.
    """
    until = time.monotonic() + patience
    announced = False
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        while not _locked(handle):
            if time.monotonic() >= until:
                raise busy()
            if not announced:
                waits()
                announced = True
            time.sleep(LOOK_EVERY)
        yield handle
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    """Take the exclusive lock on a file descriptor, unless somebody else holds it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def workspace_lock(
    workspace: Path, patience: float = 0.0, say: Callable[[str], None] = lambda _message: None
) -> Iterator[None]:
    """Hold `workspace` for writing.

    Args:
        patience: seconds to wait while another process holds it.
        say: called once, with the holder, if it waits.

    Raises:
        LockedError: another live process holds it; the error names process, start and command.
    """

    def waits() -> None:
        if patience:
            say(f"waiting: {_held(workspace).message}")

    # `holder` takes the lock for a moment, so wait a little in any case.
    with file_lock(
        workspace / "lock",
        patience=max(patience, 0.3),
        busy=lambda: _held(workspace),
        waits=waits,
    ) as handle:
        record = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "command": " ".join(["align", *sys.argv[1:]]),
        }
        os.ftruncate(handle, 0)
        try:
            os.pwrite(handle, json.dumps(record).encode(), 0)
        except OSError as error:
            # The lock holds without a record; `align doctor` must work on a full disk.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            say(f"the disk of {workspace} is full")
        yield
        os.ftruncate(handle, 0)


class QueueSlot:
    """A place in the queue for a workspace, under the name of the work that waits.

    Only one process queues under a name, because it will do a second one's work too. The kernel
    frees the place when the process dies.
    """

    def __init__(self, workspace: Path, name: str):
        self._path = workspace / "line" / f"{name}.lock"
        self._handle: int | None = None

    def join(self) -> bool:
        """Take the place; returns False if another process has it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        if not _locked(handle):
            os.close(handle)
            return False
        self._handle = handle
        return True

    def leave(self) -> None:
        """Free the place."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def holder(workspace: Path) -> dict[str, Any] | None:
    """The record of the process that holds the workspace, or None; never blocks."""
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
    """Check that nobody holds the workspace, before anything heavy is imported.

    Raises:
        LockedError: another process holds it.
    """
    if holder(workspace) is not None:
        raise _held(workspace)


def _held(workspace: Path) -> LockedError:
    record = holder(workspace) or {}
    details = ", ".join(f"{key} {record[key]}" for key in ("pid", "host", "since") if key in record)
    command = f" ({record['command']})" if record.get("command") else ""
    return LockedError(
        f"another process is working on this workspace: {details or 'unknown'}{command}",
        where=str(workspace),
        remedy="wait for it, or stop it: its finished stages are kept, the rest resumes",
    )
