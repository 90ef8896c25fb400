"""Child processes that die with their parent, and checks whether a process still runs."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
_SAME = 2.0  # seconds by which two readings of one start time may differ


def born() -> float:
    """When this process started, in seconds since 1970."""
    import psutil

    return float(psutil.Process().create_time())


def runs(pid: int, started: float | None) -> bool:
    """Whether the process `pid` of this host still runs and started at `started`.

    The start time matters because process ids are reused: after a reboot, and in every container.

    Args:
        started: the process's own `born()`; None accepts any process with this id.
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
    """For `Popen(preexec_fn=...)`: have the kernel send the child `number` when its parent dies.

    Returns:
        The function; None on systems other than Linux, which cannot do this.
    """
    return _asking(number, os.getpid())


def die_with_this_parent() -> None:
    """Have the kernel kill this process when its parent dies, on Linux."""
    if (ask := _asking(signal.SIGKILL, os.getppid())) is not None:
        ask()


def _asking(number: signal.Signals, parent: int) -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)  # loaded before the fork: the child must not import

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # the parent died before the call, so no signal will come
            os._exit(128 + number)

    return ask
