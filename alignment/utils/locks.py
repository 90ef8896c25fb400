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


def acquire(handle: int, patience: float, waits: Callable[[], None] = lambda: None) -> bool:
    """Whether the exclusive lock on a file descriptor is ours, after `patience` seconds at most.

    Args:
        waits: called once if somebody else holds it.
    """
    until = time.monotonic() + patience
    told = False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
        if not told:
            waits()
            told = True
        time.sleep(LOOK_EVERY)


@contextmanager
def file_lock(
    path: Path,
    *,
    patience: float = 0.0,
    busy: Callable[[], Exception],
    waits: Callable[[], None] = lambda: None,
) -> Iterator[int]:
    """Hold the exclusive lock on `path`, made if need be; gives its file descriptor.

    Args:
        patience: seconds to wait for whoever holds it.
        busy: what to raise if somebody still does.
        waits: called once if somebody holds it.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not acquire(handle, patience, waits):
            raise busy()
        yield handle
    finally:
        os.close(handle)


@contextmanager
def workspace_lock(
    workspace: Path, patience: float = 0.0, say: Callable[[str], None] = lambda _message: None
) -> Iterator[None]:
    """Hold `workspace` for writing.

    Args:
        patience: seconds to wait for whoever holds it.
        say: told once that it waits, and for whom.

    Raises:
        LockedError: another live process holds it; says who, since when and with which command.
    """

    def waits() -> None:
        if patience:
            say(f"waiting: {_held(workspace).message}")

    # Whoever asks `holder` has it for a moment: that is no reason to give up.
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
            # Held all the same, but nobody can say by whom: `align doctor` must get in.
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            say(f"the disk of {workspace} is full")
        yield
        os.ftruncate(handle, 0)


class QueueSlot:
    """A place in line for a workspace, under the name of what one wants to do there.

    Only one process stands in line under a name: what a second one wants, the first will do.
    The kernel frees the place when the process dies.
    """

    def __init__(self, workspace: Path, name: str):
        self._path = workspace / "line" / f"{name}.lock"
        self._handle: int | None = None

    def join(self) -> bool:
        """Whether nobody stands there under this name; then we do."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._handle = handle
        return True

    def leave(self) -> None:
        """Make room for the next."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


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
