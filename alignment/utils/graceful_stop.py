"""Graceful stop: a stage that is told to stop first goes on to its next checkpoint.

Ctrl-C and SIGTERM (Prefect's cancel, `align down`, a lost parent) are held back while a stage
works. Where a loop could write a checkpoint it calls `stop_requested`, saves an extra checkpoint if
so, and calls `stop_if_requested`, which lets the signal act. The signal also acts after a grace
period, at a second Ctrl-C, and when the stage is done.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from alignment.utils import distributed

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Held:
    """Signals that are held back, and the original handlers.

    Our handler only writes a byte, because the code that it interrupts may hold any lock, even the
    log's. A thread waits for that byte, tells the user, and ends the grace period.
    """

    def __init__(self, grace: float, say: Callable[[str], None]):
        self.number: int | None = None
        self._grace, self._say = grace, say
        self._over = False
        self._handlers: dict[int, Any] = {}
        self._reader, self._writer = os.pipe()
        self._watcher = threading.Thread(target=self._watch, name="stopping", daemon=True)

    def hold(self) -> None:
        """Start to hold signals back. Ignored signals stay ignored, as in a background job."""
        self._watcher.start()
        for number in SIGNALS:
            before = signal.getsignal(number)
            if before not in (None, signal.SIG_IGN):
                self._handlers[number] = before
                signal.signal(number, self._arrived)

    def release(self) -> None:
        """Restore the handlers and raise the signal that waits, if there is one."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
        writer, self._writer = self._writer, -1
        if writer >= 0:
            os.close(writer)
        waiting, self.number = self.number, None
        if waiting is not None:
            signal.raise_signal(waiting)

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
            os.write(self._writer, b".")
        elif self._over or number == signal.SIGINT:
            self.release()

    def _watch(self) -> None:
        with os.fdopen(self._reader, "rb", buffering=0) as reader:
            number = self.number if reader.read(1) else None
            if number is None:  # no signal came, or it was released already
                return
            again = "; press Ctrl-C again to stop now" if number == signal.SIGINT else ""
            self._say(f"stops at the next checkpoint, in {self._grace:.0f} s at the latest{again}")
            ended, _, _ = select.select([reader], [], [], self._grace)
            if not ended:
                self._over = True
                os.kill(os.getpid(), number)  # handlers run in the main thread only


_held: _Held | None = None


@contextmanager
def held(grace: float, say: Callable[[str], None]) -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM in the block, until `stop_if_requested` or for `grace` seconds.

    Does nothing if the grace is 0, inside another such block, or outside the main thread, where
    Python delivers no signals.
    """
    global _held
    main = threading.current_thread() is threading.main_thread()
    if grace <= 0 or _held is not None or not main:
        yield
        return
    _held = _Held(grace, say)
    _held.hold()
    try:
        yield
    finally:
        ending, _held = _held, None
        ending.release()


def stop_requested() -> bool:
    """Whether the stage was told to stop, so that a checkpoint should be written now.

    If several processes share the stage, all must call this at the same places. All get the same
    answer, because a signal may reach some a step early and none can do a step without the others.
    """
    requested = _held is not None and _held.number is not None
    return distributed.largest(float(requested)) > 0


def stop_if_requested() -> None:
    """End the stage here if it was told to stop. Call it when all work is safe on disk.

    Raises:
        BaseException: whatever the signal's handler raises, KeyboardInterrupt by default.
    """
    if _held is not None and _held.number is not None:
        _held.release()
