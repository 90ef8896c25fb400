"""The process that writes to MLflow while a program runs.

`python -m alignment.tracking.follow WORKSPACE PID`, started by `alignment.tracking.observer`.

Reads one JSON line per event from stdin: `{"event": "changed"}` or `{"event": "finished"}`. When
stdin ends without `finished`, the program died: its open runs are closed as KILLED. Answers with
JSON lines on stdout: `{"note": …}` for what was done unasked, `{"problems": […]}` whenever what
could not be written changes, and `{"closed": true, "problems": […]}` at the end.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.errors import AlignError, redact
from alignment.pipeline.workspace import kept_program
from alignment.utils.locks import file_lock

if TYPE_CHECKING:
    from alignment.tracking.sync import Sync

PATIENCE = 15.0  # seconds between two tries at a store that does not work
LIVE_SECONDS = 20.0  # between two sendings of a running stage's curves
LOCK = "tracking.lock"


@contextmanager
def tracking_lock(workspace: Path, patience: float = 60.0) -> Iterator[None]:
    """One writer of history per workspace: two would write the same run twice.

    Raises:
        AlignError: another process still writes after `patience` seconds.
    """
    busy = AlignError(
        "another process is writing the history of this workspace to MLflow",
        where=str(workspace),
        remedy="wait for it, or stop the program that runs",
    )
    with file_lock(workspace / LOCK, patience=patience, busy=lambda: busy):
        yield


class Follower:
    """Turns events into synchronisations, and keeps calm when the store does not work."""

    def __init__(self, workspace: Path, parent: int):
        self.workspace = workspace
        self.parent = parent
        self.program = kept_program(workspace)
        self.events: queue.Queue[str] = queue.Queue()
        self._sync: Sync | None = None
        self._told: list[str] | None = None

    def run(self) -> None:
        """Until the program ends, one way or the other."""
        threading.Thread(target=self._listen, daemon=True).start()
        ending = None
        while ending is None:
            ending = self._wait(LIVE_SECONDS)
            if ending is None:
                problems = self._step(alive=True)
                if problems:
                    ending = self._pause()
        died = ending == "died"
        problems = self._step(alive=False, dead_pid=self.parent if died else None)
        self._say({"closed": True, "problems": problems})

    def _listen(self) -> None:
        event = "died"
        for line in sys.stdin:
            event = json.loads(line)["event"]
            self.events.put(event)
        if event != "finished":
            self.events.put("died")

    def _wait(self, seconds: float) -> str | None:
        """The next event and all that came with it; the ending, if one is among them."""
        try:
            events = [self.events.get(timeout=seconds)]
        except queue.Empty:
            return None
        time.sleep(0.05)  # what belongs together arrives together
        while not self.events.empty():
            events.append(self.events.get())
        return next((event for event in events if event in ("finished", "died")), None)

    def _pause(self) -> str | None:
        until = time.monotonic() + PATIENCE
        while (left := until - time.monotonic()) > 0:
            ending = self._wait(left)
            if ending is not None:
                return ending
        return None

    def _step(self, *, alive: bool, dead_pid: int | None = None) -> list[str]:
        try:
            if self._sync is None:
                from alignment.tracking.aside import settle
                from alignment.tracking.sync import Sync

                if note := settle(self.program):
                    self._say({"note": note})
                self._sync = Sync(self.program)
                if note := self._sync.store.taken_over:
                    self._say({"note": note})
            problems = self._sync.step(alive=alive, dead_pid=dead_pid)
        except Exception as error:
            lines = redact(str(error)).strip().splitlines()
            problems = [f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]]
        if problems:
            self._sync = None  # what it remembers of the store may be wrong now
        if problems != (self._told or []):
            self._say({"problems": problems})
        self._told = problems
        return problems

    def _say(self, answer: dict[str, object]) -> None:
        try:
            print(json.dumps(answer), flush=True)
        except BrokenPipeError:
            # The program is gone; what is left to do is done without it.
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def main() -> None:
    """Entry point of the process."""
    workspace, parent = Path(sys.argv[1]).resolve(), int(sys.argv[2])
    with tracking_lock(workspace):
        Follower(workspace, parent).run()


if __name__ == "__main__":
    main()
