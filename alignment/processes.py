"""Children that end with their parent, however it ends."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> Callable[[], None] | None:
    """For `Popen(preexec_fn=...)`: the kernel sends the child `number` when its parent is gone.
    None where the kernel cannot (not Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)  # loaded before the fork: the child must not import

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, number)

    return ask
