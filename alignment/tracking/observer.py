"""The runner's ear for MLflow: passes events on to a process of its own and never waits for it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from alignment.config.program import ProgramConfig
from alignment.pipeline.node import Node
from alignment.pipeline.records import Attempt, Manifest

log = logging.getLogger("alignment.tracking")

REMEDY = "no stage is lost: the next run, or `align mlflow rebuild`, writes what is missing"
CLOSE_AFTER = 300.0  # seconds to wait for the last runs to be written on a busy machine


def tracker(program: ProgramConfig, say: Callable[[str], None] = log.warning) -> list[Tracker]:
    """The observers that record `program` to MLflow: one, or none if tracking is off."""
    return [Tracker(program, say)] if program.tracking.enabled else []


class Tracker:
    """Keeps MLflow up to date with the ledger (an `alignment.execution.observer.Observer`).

    The ledger is all the other process reads, so an event only means "look". If that process dies
    or the store does not work, the user is told once and the stages go on.
    """

    def __init__(self, program: ProgramConfig, say: Callable[[str], None]):
        self.workspace = program.workspace.resolve()
        self._say = say
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._problems: list[str] = []
        self._closed = False
        self._warned = False

    def program_started(self, program: ProgramConfig, plan: Sequence[Node]) -> None:
        """Start the process; it catches up with whatever earlier runs left unwritten."""
        with (self.workspace / "tracking.log").open("a", encoding="utf-8") as errors:
            command = [sys.executable, "-m", "alignment.tracking.follow"]
            self._process = subprocess.Popen(
                [*command, str(self.workspace), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, "PYTHONPATH": _python_path()},
                start_new_session=True,  # Ctrl-C is for us: it must still close the runs
            )
        self._reader = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._reader.start()
        self._send("changed")

    def stage_started(self, attempt: Attempt) -> None:
        self._send("changed")

    def stage_finished(self, attempt: Attempt, manifest: Manifest) -> None:
        self._send("changed")

    def stage_failed(self, attempt: Attempt) -> None:
        self._send("changed")

    def stage_cached(self, node: Node, manifest: Manifest) -> None:
        """Nothing new: the process compares ledger and store anyway."""

    def program_finished(self) -> None:
        """Wait until everything is written, or say what is not."""
        process = self._process
        if process is None:
            return
        self._send("finished")
        assert process.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait(CLOSE_AFTER)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._reader is not None:
            self._reader.join(5)
            if process.stdout is not None and not self._reader.is_alive():
                process.stdout.close()
        self._process = None
        if self._problems:
            self._say(f"MLflow does not have everything ({_first(self._problems)}); {REMEDY}")
        elif not self._closed and not self._warned:
            self._lost(process)

    def _send(self, event: str) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        try:
            process.stdin.write(json.dumps({"event": event}) + "\n")
            process.stdin.flush()
        except (BrokenPipeError, ValueError):
            self._lost(process)

    def _lost(self, process: subprocess.Popen[str]) -> None:
        if not self._warned:
            self._warned = True
            code = process.poll()
            self._say(
                f"the process that writes to MLflow ended early (exit code {code}, see "
                f"{self.workspace / 'tracking.log'}); {REMEDY}"
            )

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            try:
                answer: dict[str, Any] = json.loads(line)
            except json.JSONDecodeError:
                continue  # a library's own print
            if "note" in answer:
                self._say(str(answer["note"]))
                continue
            problems = answer.get("problems", [])
            if problems and not self._problems and not answer.get("closed"):
                self._say(f"MLflow cannot be written now ({_first(problems)}); the stages go on")
            elif self._problems and not problems:
                self._say("MLflow can be written again")
            self._problems = problems
            self._closed = bool(answer.get("closed"))


def _first(problems: list[str]) -> str:
    more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
    return f"{problems[0]}{more}"


def _python_path() -> str:
    """So that the process finds this very library, installed or not."""
    root = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    return f"{root}{os.pathsep}{inherited}" if inherited else root
