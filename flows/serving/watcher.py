"""The watcher of `align serve`: finds complete files in the inbox, runs that died, and a version
that was added to the program."""

import logging
import threading
import time
from collections.abc import Callable
from uuid import UUID

from alignment.config.program import ProgramConfig
from alignment.errors import redact
from alignment.pipeline.workspace import kept_program
from alignment.preferences.inbox import Settling, not_taken, settled_files
from flows.definitions.events import FILE_COMPLETE, emit
from flows.serving.recovery import retry_died

LOOK_EVERY = 1.0
RECOVER_EVERY = 3.0
REPEAT_AFTER = 30.0  # seconds after which an event that had no effect is sent again

log = logging.getLogger("alignment.flows")


class Watcher(threading.Thread):
    """Checks repeatedly until it is stopped. Server errors are logged and survived.

    Args:
        versions: ids of the deployments that work on versions.
        begin: has the next version begin, if it can.
    """

    def __init__(
        self,
        program: ProgramConfig,
        versions: list[UUID],
        begin: Callable[[ProgramConfig], None],
    ):
        super().__init__(name="watch", daemon=True)
        self.program = program
        self._versions = versions
        self._begin = begin
        self._ended = threading.Event()
        self._announced: tuple[str, ...] = ()
        self._announced_at = 0.0
        self._recovered_at = 0.0
        self._trouble = ""
        self._settling = Settling()

    def stop(self) -> None:
        """End after the current check."""
        self._ended.set()

    def run(self) -> None:
        while not self._ended.wait(LOOK_EVERY):
            try:
                self.look()
                if time.monotonic() - self._recovered_at > RECOVER_EVERY:
                    self._recovered_at = time.monotonic()
                    self.follow()
                    run = retry_died(self.program, self._versions)
                    if run is not None:
                        log.info("%s died and continues", run.name)
                self._trouble = ""
            except Exception as error:  # the server may be restarting: try again
                message = redact(f"{type(error).__name__}: {error}")
                if message != self._trouble:
                    log.warning("cannot check now (%s)", message.splitlines()[0])
                self._trouble = message

    def follow(self) -> None:
        """Read the program again, and begin what was added to it."""
        kept = kept_program(self.program.workspace)
        added = len(kept.versions) > len(self.program.versions)
        self.program = kept
        if added:
            self._begin(kept)

    def look(self) -> None:
        """Emit an event for complete files, and repeat it if nobody ingests them."""
        if self.program.intake.source != "inbox":
            return
        workspace = self.program.workspace
        new = not_taken(workspace, self.program.intake)
        seconds = self.program.orchestration.settle_seconds
        files = settled_files(new, self._settling, seconds)
        names = tuple(path.name for path in files)
        again = time.monotonic() - self._announced_at > REPEAT_AFTER
        if names and (again or set(names) - set(self._announced)):
            emit(workspace, FILE_COMPLETE, files=list(names))
            self._announced, self._announced_at = names, time.monotonic()
        elif not names:
            self._announced = ()
