"""Peak memory of a stage, release of freed memory, and the kernel's out-of-memory kills."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from pathlib import Path
from typing import Any

import psutil

_WORTH_LOOKING_MB = 64.0
_COUNTER = "oom_kill"
_settled_mb = 0.0  # resident after the last look for cycles


class PeakMemory:
    """Context manager; `peak_mb` is the largest resident set, sampled every `interval` seconds.

    On a GPU the allocator's exact peak is added.
    """

    def __init__(self, interval: float = 0.1):
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_mb = 0.0

    def __enter__(self) -> PeakMemory:
        self._look()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self._thread.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._stop.set()
        self._thread.join()
        self._look()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            self.peak_mb += torch.cuda.max_memory_allocated() / 2**20

    def _look(self) -> None:
        self.peak_mb = max(self.peak_mb, _resident_mb())

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self._look()


def give_back() -> None:
    """Return the memory that a stage has freed to the system.

    The C library keeps freed blocks of mixed sizes; over fifty stages in one process they grew to
    gigabytes. On a GPU the allocator's cache is emptied. Collecting reference cycles takes half a
    second with all libraries loaded, so it is done only if memory stays occupied.
    """
    global _settled_mb
    _trim()
    if _resident_mb() > _settled_mb + _WORTH_LOOKING_MB:
        gc.collect()
        _trim()
        _settled_mb = _resident_mb()


def _trim() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's own; others do without
    if trim is not None:
        trim(0)


def _resident_mb() -> float:
    return float(psutil.Process().memory_info().rss) / 2**20


def main_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may use: the machine's memory, or its control group's limit.

    Args:
        root: directory that contains `proc` and `sys`.
    """
    limits = [int(psutil.virtual_memory().total)]
    top = root / "sys/fs/cgroup"
    within = [[group, *group.parents] for group in _groups(root)]
    for directory in (place for places in within for place in places if place.is_relative_to(top)):
        for name in ("memory.max", "memory.limit_in_bytes"):  # versions 2 and 1
            try:
                text = (directory / name).read_text(encoding="utf-8").strip()
            except OSError:
                continue
            if text.isdecimal():
                limits.append(int(text))
    return min(limits)


def oom_kills(root: Path = Path("/")) -> int | None:
    """How many processes the kernel has killed for lack of memory; None if it does not say.

    The kernel counts before it sends the signal, so once the process is dead the count is up.

    Args:
        root: directory that contains `proc` and `sys`.
    """
    for path in _counter_files(root):
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            continue
        for line in text.splitlines():
            name, _, count = line.partition(" ")
            if name == _COUNTER:
                return int(count)
    return None


def _counter_files(root: Path) -> list[Path]:
    """Files that may hold the counter, the most specific first."""
    names = ("memory.events", "memory.oom_control")  # versions 2 and 1
    files = [directory / name for directory in _groups(root) for name in names]
    return [*files, root / "proc/vmstat"]


def _groups(root: Path) -> list[Path]:
    """The control groups of this process that count memory."""
    top = root / "sys/fs/cgroup"
    found = []
    try:
        ours = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        ours = []
    for line in ours:
        _, controllers, group = line.split(":", 2)
        if controllers == "":  # version 2
            found.append(top / group.lstrip("/"))
        elif "memory" in controllers.split(","):
            found.append(top / "memory" / group.lstrip("/"))
    return found
