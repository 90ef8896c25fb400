"""The eyes of `align serve`: sees files that lie complete in the inbox, and runs that died."""

import logging
import threading
import time
from uuid import UUID

from alignment.config.program import ProgramConfig
from alignment.errors import redact
from alignment.preferences.inbox import inbox_dir, look, read_journal
from flows.definitions.events import FILE_COMPLETE, emit
from flows.serving.recovery import retry_died

LOOK_EVERY = 1.0
HEAL_EVERY = 3.0
AGAIN = 30.0  # seconds after which an event that had no effect is sent again

log = logging.getLogger("alignment.flows")


class Watch(threading.Thread):
    """Looks again and again until it is stopped; trouble with the server is told and outlived.

    Args:
        versions: ids of the deployments that work on versions.
    """

    def __init__(self, program: ProgramConfig, versions: list[UUID]):
        super().__init__(name="watch", daemon=True)
        self.program = program
        self._versions = versions
        self._ended = threading.Event()
        self._told: tuple[str, ...] = ()
        self._told_at = 0.0
        self._healed_at = 0.0
        self._trouble = ""

    def stop(self) -> None:
        """End after the present look."""
        self._ended.set()

    def run(self) -> None:
        while not self._ended.wait(LOOK_EVERY):
            try:
                self.look()
                if time.monotonic() - self._healed_at > HEAL_EVERY:
                    self._healed_at = time.monotonic()
                    run = retry_died(self.program, self._versions)
                    if run is not None:
                        log.info("%s died and goes on", run.name)
                self._trouble = ""
            except Exception as error:  # a server that restarts: it is looked at again
                said = redact(f"{type(error).__name__}: {error}")
                if said != self._trouble:
                    log.warning("cannot look now (%s)", said.splitlines()[0])
                self._trouble = said

    def look(self) -> None:
        """Say in an event that there are complete files, once, and again if nobody takes them."""
        if self.program.intake.source != "inbox":
            return
        workspace = self.program.workspace
        files = look(
            inbox_dir(workspace, self.program.intake),
            self.program.intake,
            self.program.orchestration.settle_seconds,
            read_journal(workspace / "preferences"),
        )
        names = tuple(path.name for path in files)
        again = time.monotonic() - self._told_at > AGAIN
        if names and (again or set(names) - set(self._told)):
            emit(workspace, FILE_COMPLETE, files=list(names))
            self._told, self._told_at = names, time.monotonic()
        elif not names:
            self._told = ()
