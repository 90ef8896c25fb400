"""`python -m alignment.execution.launcher N MODULE ARGS…`: runs a module in N local processes.

It does torchrun's work with two differences. The processes meet through a file and listen on the
loopback interface only, and they die with their launcher. (torchrun's stores listen on every
interface, even with `--standalone --local-addr 127.0.0.1`, and its workers outlive a killed agent.)
The first failure ends all processes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from alignment.utils.distributed import RENDEZVOUS
from alignment.utils.processes import die_with_parent

_LOOK_EVERY = 0.05
_GRACE = 60.0  # the children's own grace is shorter (`orchestration.grace_seconds`)


class Child(Protocol):
    """A child process, with the methods of `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


def launch(
    count: int, start: Callable[[dict[str, str]], Child], environment: Mapping[str, str]
) -> int:
    """Run `count` processes, each started by `start` with an environment of its own.

    Args:
        environment: what theirs extend.

    Returns:
        0 if all succeeded; otherwise the exit code of one that failed, or 128 plus the signal's
        number of one that was killed.
    """
    with tempfile.TemporaryDirectory(prefix="align-") as directory:
        children = [
            start({**_defaults(count), **environment, **_own(number, count, Path(directory))})
            for number in range(count)
        ]
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda code, _frame: sys.exit(128 + code))
        try:
            return _watch(children)
        except SystemExit:
            _ask(children)
            raise
        finally:
            _end(children)


def _defaults(count: int) -> dict[str, str]:
    threads = max(1, len(os.sched_getaffinity(0)) // count) if sys.platform == "linux" else 1
    return {
        "OMP_NUM_THREADS": str(threads),
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
    }


def _own(number: int, count: int, directory: Path) -> dict[str, str]:
    return {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        RENDEZVOUS: str(directory / "rendezvous"),
    }


def _watch(children: list[Child]) -> int:
    while True:
        codes = [child.poll() for child in children]
        if any(codes):
            # Poll again: the first to fail may have been polled just before it did. Prefer one that
            # was killed, because that is why the others failed.
            worst = min(code for code in (child.poll() for child in children) if code)
            return worst if worst > 0 else 128 - worst
        if all(code == 0 for code in codes):
            return 0
        time.sleep(_LOOK_EVERY)


def _ask(children: list[Child]) -> None:
    """Ask the children to end; each goes on to its next checkpoint."""
    for child in children:
        child.terminate()
    deadline = time.monotonic() + _GRACE
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline - time.monotonic()))


def _end(children: list[Child]) -> None:
    for child in children:
        child.kill()
        child.wait()


def _start_module(environment: dict[str, str]) -> Child:
    return subprocess.Popen(
        [sys.executable, "-m", *sys.argv[2:]],
        env=environment,
        preexec_fn=die_with_parent(signal.SIGKILL),
    )


if __name__ == "__main__":
    sys.exit(launch(int(sys.argv[1]), _start_module, os.environ))
