"""`align serve` under attack: started again when it is killed, its processes picked at random."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
TARGETS = ("flow", "flow", "flow", "prefect", "mlflow", "serve", "deployments", "tracking")


def outer_environment() -> dict[str, str]:
    """This process's environment without what Prefect and MLflow would take from it."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "MLFLOW_"))
    }


class Served:
    """The command and its processes.

    Attributes:
        kills: target → how often it was killed.
        starts: how often the command was started.
    """

    def __init__(self, config: Path, ports: tuple[int, int], log: Path):
        self.kills: dict[str, int] = {}
        self.starts = 0
        self._config = config
        self._ports = ports
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def keep_up(self) -> None:
        """Start the command unless it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        command = [sys.executable, "-m", "alignment.cli.main", "serve", str(self._config)]
        command += ["--prefect-port", str(self._ports[0]), "--mlflow-port", str(self._ports[1])]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=outer_environment(), stdout=output, stderr=subprocess.STDOUT
            )
        self.starts += 1

    def family(self) -> list[psutil.Process]:
        """The command and everything below it."""
        if self._process is None:
            return []
        try:
            top = psutil.Process(self._process.pid)
            return [top, *top.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self, wanted: str, rng: random.Random) -> bool:
        """kill -9 a process of this kind; False if there is none now."""
        found = [process for process in self.family() if self._kind(process) == wanted]
        if not found:
            return False
        try:
            rng.choice(found).kill()
        except psutil.NoSuchProcess:
            return False
        self.kills[wanted] = self.kills.get(wanted, 0) + 1
        return True

    def stop(self) -> list[str]:
        """Ctrl-C; returns the command lines of what is still there afterwards."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(90)
            except subprocess.TimeoutExpired:
                # It had just begun: a process started in the background ignores Ctrl-C until it
                # says otherwise.
                self._process.send_signal(signal.SIGINT)
                self._process.wait(180)
        time.sleep(5)
        folder = str(self._config.parent)
        left = []
        for process in psutil.process_iter(["pid", "cmdline"]):
            line = " ".join(process.info["cmdline"] or ())
            if folder in line and process.pid != os.getpid():
                left.append(line)
        return left

    def _kind(self, process: psutil.Process) -> str:
        try:
            line = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            return "gone"
        for words, kind in (
            ("prefect.engine", "flow"),
            ("prefect server", "prefect"),
            ("mlflow server", "mlflow"),
            ("flows.serving.worker", "deployments"),
            ("alignment.tracking.follow", "tracking"),
            ("alignment.cli.main serve", "serve"),
        ):
            if words in line:
                return kind
        return "other"
