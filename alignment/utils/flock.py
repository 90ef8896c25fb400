"""Take the lock on an open file, with patience. The kernel frees it when the process dies."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable

LOOK_EVERY = 0.05  # seconds


def take(handle: int, patience: float, waits: Callable[[], None] = lambda: None) -> bool:
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
