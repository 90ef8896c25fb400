"""Server processes that end with us, however we end."""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from alignment.errors import AlignError, redact
from alignment.utils.processes import die_with_parent

WATCHER = "end-with-parent"


class Child:
    """A server process in its own process group, with its output in a file.

    Args:
        holds: a lock file that it holds shared as long as it lives.

    Raises:
        AlignError: the program cannot be started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        *,
        holds: Path | None = None,
    ):
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output, shared(holds) as held:
            try:
                self._process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **env},
                    start_new_session=True,
                    pass_fds=held,
                    preexec_fn=die_with_parent(),
                )
            except OSError as error:
                raise AlignError(f"cannot start {name}: {error}") from error

    @property
    def pid(self) -> int:
        """Its process id, which is also its group's."""
        return self._process.pid

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def wait_until(self, healthy: Callable[[], bool], timeout: float) -> None:
        """Wait until `healthy()`.

        Raises:
            AlignError: it ended, or is not ready after `timeout` seconds.
        """
        until = time.monotonic() + timeout
        while not healthy():
            if not self.running():
                raise AlignError(
                    f"{self.name} ended at once: {self.last_line()}",
                    where=str(self.log),
                    remedy="the log says why; a port in use is the usual reason",
                )
            if time.monotonic() > until:
                raise AlignError(
                    f"{self.name} did not answer within {timeout:.0f} s", where=str(self.log)
                )
            time.sleep(0.1)

    def last_line(self) -> str:
        """The last thing it said."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return redact(lines[-1]).strip() if lines else "no output"

    def stop(self, grace: float = 10.0) -> None:
        """End it and all its children: politely, then for good."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        self._signal(signal.SIGKILL)  # grandchildren that outlived it, or itself
        self._process.wait()

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return


@contextmanager
def shared(path: Path | None) -> Iterator[tuple[int, ...]]:
    """The shared lock on a file as a descriptor to pass to a child, which then holds it too."""
    if path is None:
        yield ()
        return
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield (handle,)
    finally:
        os.close(handle)


def end_with_parent(grace: float = 20.0) -> None:
    """End this process when the one that started it is gone: nobody else would ever stop it.

    The ledger keeps what is finished and the checkpoints of the rest. (The kernel's own signal on
    a parent's death does not serve for processes that a thread started, whose end counts, and
    comes only once, perhaps while the signal is held back.) `grace` is in seconds.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace)
        os.kill(os.getpid(), signal.SIGKILL)

    if not any(thread.name == WATCHER for thread in threading.enumerate()):
        threading.Thread(target=watch, name=WATCHER, daemon=True).start()


def free_port() -> int:
    """A TCP port on loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_taken(port: int) -> bool:
    """Whether somebody listens on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
