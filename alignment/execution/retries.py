"""Decides after a failed attempt whether to retry, and which error the user sees."""

from __future__ import annotations

import time
from collections.abc import Callable

from alignment.config.load import for_version
from alignment.config.program import ProgramConfig
from alignment.errors import AlignError, StageError
from alignment.execution.failures import PIECES, free_memory, kind_of, smaller
from alignment.pipeline.disk_space import DiskFullError, disk_full
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.node import Node
from alignment.pipeline.records import Attempt

SMALLER = "smaller"  # file in the partial directory: this stage ran out of memory before


class Retries:
    """The retries of one stage: smaller pieces once, transient failures a few times."""

    def __init__(
        self, program: ProgramConfig, ledger: Ledger, node: Node, say: Callable[[str], None]
    ):
        self._program = program
        self._ledger = ledger
        self._node = node
        self._say = say
        self._passing = 0

    def another(self, attempt: Attempt, error: BaseException) -> bool:
        """Whether to try again. Waits first, or makes the next attempt compute less at once."""
        kind = kind_of(error)
        if kind == "memory":
            return self._make_smaller(attempt)
        if kind == "transient" and self._passing < self._program.orchestration.retries:
            self._passing += 1
            self._wait(error)
            return True
        return False

    def verdict(self, attempt: Attempt, error: BaseException) -> BaseException:
        """The error that the user sees."""
        program, node, kind = self._program, self._node, kind_of(error)
        if kind == "disk" and not isinstance(error, DiskFullError):
            return disk_full(program, node)
        if isinstance(error, AlignError) or not isinstance(error, Exception):
            return error
        remedy = "see the log; `align resume` goes on from the last checkpoint"
        if kind == "memory":
            remedy = (
                "smaller pieces were not enough, or there are none: lower "
                f"{', '.join(PIECES.get(node.module, ('compute',)))}; then `align resume`"
            )
        return StageError(
            f"{node.key} failed: {type(error).__name__}: {error}",
            where=str(self._ledger.log_path(attempt)),
            remedy=remedy,
        )

    def _make_smaller(self, attempt: Attempt) -> bool:
        """Have the next attempt compute less at once; False if it already does, or cannot."""
        node = self._node
        note = self._ledger.partial_dir(node.version, node.stage, attempt.fingerprint) / SMALLER
        _, changes = smaller(for_version(self._program, node.version), node.module)
        if note.exists() or not changes:
            return False
        note.write_text("\n".join(changes))
        free_memory()
        self._say(
            f"{node.key} ran out of memory; retrying once in smaller pieces with the same maths: "
            f"{', '.join(changes)}"
        )
        return True

    def _wait(self, error: BaseException) -> None:
        settings = self._program.orchestration
        pause = settings.retry_seconds * 2 ** (self._passing - 1)
        self._say(
            f"{self._node.key} failed, perhaps only for now ({type(error).__name__}: "
            f"{getattr(error, 'message', error)}); "
            f"retry {self._passing} of {settings.retries} in {pause:.0f} s"
        )
        time.sleep(pause)
