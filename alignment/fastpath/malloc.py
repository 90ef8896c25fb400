"""Makes the C library keep freed memory: on a CPU, returning it costs more than many operations.

Every activation above glibc's threshold is mapped from the kernel, zeroed page by page on first
touch, and unmapped when freed. Training frees and allocates the same sizes thousands of times. All
threads share one heap, so that each can reuse what another has freed.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from functools import cache

log = logging.getLogger("alignment")

_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


@cache
def keep_freed_memory() -> bool:
    """Raise glibc's thresholds for this process, for good; False where the C library is another."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    settings = (
        (_M_MMAP_THRESHOLD, 1 << 30),
        (_M_TRIM_THRESHOLD, (1 << 31) - 1),
        (_M_TOP_PAD, 1 << 26),
        (_M_ARENA_MAX, 1),
    )
    done = all(mallopt(option, value) == 1 for option, value in settings)
    if done:
        log.info("this process keeps freed memory from now on (glibc's thresholds are raised)")
    return done
