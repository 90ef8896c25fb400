"""One writer at a time on a preference store, and files that a power cut cannot undo."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from alignment.errors import LockedError
from alignment.utils.files import fsync_directory
from alignment.utils.flock import take

PATIENCE = 600.0  # seconds to wait for another intake on the same store


def wait_for(handle: int, root: Path, say: Callable[[str], None]) -> None:
    """Take the lock on an open file; the kernel gives it back when the process dies.

    Raises:
        LockedError: another process has held it for ten minutes.
    """
    if not take(handle, PATIENCE, lambda: say("waiting for another intake on this store")):
        raise LockedError(
            "another intake has been writing to the preference store for ten minutes",
            where=str(root),
            remedy="wait for it, or stop it; half a batch never stays behind",
        )


def sync_files(directory: Path) -> None:
    """Bring every file of a directory to the disk."""
    for path in directory.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    fsync_directory(directory)
