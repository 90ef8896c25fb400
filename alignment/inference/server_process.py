"""A server as a child of ours: started, awaited, ended with everything that it started."""

from __future__ import annotations

import contextlib
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

from alignment.errors import StageError
from alignment.inference.server_command import ServerPlan, command, environment
from alignment.utils.http import answers
from alignment.utils.loopback import HOSTS
from alignment.utils.progress import Progress

_GUARD = "alignment.inference.server_guard"
_LOOK_EVERY = 0.1
_SAY_EVERY = 15.0
_PATIENCE = 3600.0  # 70B from a network disk take a while
_SHOWN = 15  # lines of the log in an error
_END = 20.0  # seconds for the guard, which is done within 5
_TAKEN = "address already in use"
_TRIES = 3


class NotStarted(StageError):
    """A server ended before it was ready."""


class ServerProcess:
    """A vLLM server on a free port of this machine, for us alone.

    Args:
        log: file to which the server's output is added.

    Attributes:
        url: its address.
        key: the bearer token that it wants, new for each server.

    Raises:
        StageError: it does not answer; NotStarted: it ended before it did. The end of its log is in
            the message.
    """

    def __init__(self, plan: ServerPlan, log: Path, progress: Progress):
        self._plan, self._log = plan, log
        self.key = secrets.token_urlsafe(24)
        for attempt in range(_TRIES):
            self._begin()
            try:
                self._await(progress)
            except BaseException as error:
                self.stop()
                if attempt + 1 < _TRIES and isinstance(error, StageError) and self._port_taken():
                    continue  # somebody took the port between our look and the server's
                raise
            return

    def _begin(self) -> None:
        port = _free_port()
        self.url = f"http://{HOSTS[0]}:{port}"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as output:
            self._from = output.tell()
            self._guard = subprocess.Popen(
                [sys.executable, "-m", _GUARD, *command(self._plan, port)],
                stdin=subprocess.PIPE,  # closes with us, however we end
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(self._plan, self.key),
                # Whoever ends our group must not end the guard before it has done its work.
                start_new_session=True,
            )

    def _await(self, progress: Progress) -> None:
        started = said = time.monotonic()
        progress.say(f"starting vLLM for {self._plan.name}; its log: {self._log}")
        while not answers(f"{self.url}/health"):
            now = time.monotonic()
            if not self.running:
                error = self.error("vLLM ended before it was ready")
                raise NotStarted(error.message, where=error.where, remedy=error.remedy)
            if now - started > _PATIENCE:
                raise self.error(f"vLLM was not ready after {_PATIENCE / 60:.0f} minutes")
            if now - said > _SAY_EVERY:
                said = now
                last = (self.tail(1) or ["no word yet"])[0]
                progress.say(f"vLLM has been starting for {now - started:.0f} s: {last[-120:]}")
            time.sleep(_LOOK_EVERY)
        progress.say(f"vLLM is ready after {time.monotonic() - started:.0f} s")

    @property
    def running(self) -> bool:
        """Whether the server's first process runs."""
        return self._guard.poll() is None

    def healthy(self) -> bool:
        """Whether the server runs and says that its engine works."""
        return self.running and answers(f"{self.url}/health", timeout=5.0)

    def stop(self) -> None:
        """End the server with everything that it started; returns once that is done."""
        if self._guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.close()
        try:
            self._guard.wait(_END)
        except subprocess.TimeoutExpired:
            self._guard.kill()
            self._guard.wait()

    def tail(self, lines: int = _SHOWN) -> list[str]:
        """The last lines of the log of this server that are not blank."""
        with self._log.open("rb") as file:
            file.seek(max(self._from, self._log.stat().st_size - 20_000))
            text = file.read().decode("utf-8", "replace").replace(self.key, "[key]")
        return [line for line in text.splitlines() if line.strip()][-lines:]

    def error(self, what: str) -> StageError:
        """An error that quotes the end of the log."""
        said = "\n    ".join(self.tail())
        return StageError(
            f"{what}; the end of its log:\n    {said or '(empty)'}",
            where=str(self._log),
            remedy=_remedy(said),
        )

    def _port_taken(self) -> bool:
        return _TAKEN in "\n".join(self.tail()).lower()


def _remedy(log: str) -> str:
    """What to do about an error in a log."""
    text = log.lower()
    if "kv cache" in text or "out of memory" in text or "free memory on device" in text:
        return (
            "lower generation.max_prompt_tokens, or set inference.vllm.tensor_parallel_size to "
            "more GPUs"
        )
    return "see the log; `align doctor` checks vLLM's environment"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOSTS[0], 0))
        return int(probe.getsockname()[1])
