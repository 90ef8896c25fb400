"""Children that end with their parent, however it ends; and which processes still run."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
_SAME = 2.0  # seconds that two readings of one start time differ by at most


def born() -> float:
    """When this process started, in seconds since 1970."""
    import psutil

    return float(psutil.Process().create_time())


def runs(pid: int, started: float | None) -> bool:
    """Whether the process `pid` of this host still runs, and is the one that started then.

    Numbers are given again: after a reboot, and in every new container from 1 on.

    Args:
        started: what `born` told in it; None where nobody asked, then any process counts.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return started is None or abs(process.create_time() - started) < _SAME
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # somebody else's
        return True


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> Callable[[], None] | None:
    """For `Popen(preexec_fn=...)`: the kernel sends the child `number` when its parent is gone.
    None where the kernel cannot (not Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)  # loaded before the fork: the child must not import
    parent = os.getpid()

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it died before the kernel was asked, which then says nothing
            os._exit(128 + number)

    return ask
