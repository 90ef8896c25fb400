"""`python -m alignment.inference.server_guard COMMAND…`: ends a server, whole, with its owner.

The owner holds the other end of this process's standard input. When that closes, because the owner
is done or was killed with `kill -9`, or when the server itself ends, every process that the server
has started is ended too: those that left its group and those whose parents are gone as well, for
on Linux the guard inherits orphans. A death signal alone would reach the first process only, and
vLLM's engine and workers, which hold the GPU, would live on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from types import FrameType

import psutil

from alignment.utils.processes import die_with_parent

_PR_SET_CHILD_SUBREAPER = 36
_LOOK_EVERY = 0.1
_GRACE = 3.0  # seconds for a server to end by itself


def guard(command: list[str]) -> int:
    """Run `command` until it ends or the owner does; returns its exit code, 128 plus the signal's
    number if a signal ended it."""
    owner = os.getppid()
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, _stop)
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGKILL),
    )
    try:
        while server.poll() is None and os.getppid() == owner and not _closed():
            time.sleep(_LOOK_EVERY)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end_all(server)
    code = server.wait()
    return code if code >= 0 else 128 - code


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def _closed() -> bool:
    """Whether the owner has closed standard input; nothing is ever written to it."""
    readable, _, _ = select.select([0], [], [], 0)
    return bool(readable) and os.read(0, 1) == b""


def _end_all(server: subprocess.Popen[bytes]) -> None:
    """End all descendants; those that they leave behind become children of ours, and follow."""
    until = time.monotonic() + _GRACE
    asked: set[int] = set()
    while living := _living(server):
        late = time.monotonic() > until
        for process in living:
            with contextlib.suppress(psutil.NoSuchProcess):
                if late:
                    process.kill()
                elif process.pid not in asked:
                    asked.add(process.pid)
                    process.terminate()
        time.sleep(0.02)


def _living(server: subprocess.Popen[bytes]) -> list[psutil.Process]:
    server.poll()  # first, so that nobody else collects its exit code
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            dead = process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            continue
        if not dead:
            found.append(process)
        elif process.pid != server.pid:
            with contextlib.suppress(ChildProcessError):  # its parent collects it
                os.waitpid(process.pid, os.WNOHANG)
    return found


if __name__ == "__main__":
    sys.exit(guard(sys.argv[1:]))
