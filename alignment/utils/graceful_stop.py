"""A polite end: a stage that is told to stop goes on to its next checkpoint first.

Ctrl-C and SIGTERM (Prefect's cancel, `align down`, a lost parent) are held back while a stage
works. Where a loop could write a checkpoint it asks `asked`, writes one out of turn, and calls
`reached`: then the signal takes its course. It does so as well after a grace period, at a second
Ctrl-C, and once the stage is done.
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
    """Signals that wait, and the handlers they are meant for.

    The handler itself only writes a byte: what it interrupted may hold any lock, the log's too. A
    thread that waits for the byte says what happens, and ends the grace.
    """

    def __init__(self, grace: float, say: Callable[[str], None]):
        self.number: int | None = None
        self._grace, self._say = grace, say
        self._over = False
        self._handlers: dict[int, Any] = {}
        self._reader, self._writer = os.pipe()
        self._watcher = threading.Thread(target=self._watch, name="stopping", daemon=True)

    def hold(self) -> None:
        """From now on. What is ignored stays ignored, as in a shell's background jobs."""
        self._watcher.start()
        for number in SIGNALS:
            before = signal.getsignal(number)
            if before not in (None, signal.SIG_IGN):
                self._handlers[number] = before
                signal.signal(number, self._arrived)

    def release(self) -> None:
        """Put the handlers back and let the signal that waits, if any, take its course."""
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
            if number is None:  # nothing came, or it has ended already
                return
            again = "; Ctrl-C again: at once" if number == signal.SIGINT else ""
            self._say(f"stops at the next checkpoint, in {self._grace:.0f} s at the latest{again}")
            ended, _, _ = select.select([reader], [], [], self._grace)
            if not ended:
                self._over = True
                os.kill(os.getpid(), number)  # handlers run in the main thread only


_held: _Held | None = None


@contextmanager
def held(grace: float, say: Callable[[str], None]) -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back within the block, until `reached` or for `grace` seconds.

    Does nothing with a grace of 0, within another such block, and outside the main thread, where
    Python has no signals.
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


def asked() -> bool:
    """Whether the stage was told to stop: the next checkpoint should be written now.

    Of several processes on one stage every one must ask at the same places. All get the same
    answer: the signal may have reached some of them a step before the others, and without those
    none could do another step.
    """
    told = _held is not None and _held.number is not None
    return distributed.largest(float(told)) > 0


def reached() -> None:
    """Call when all that was done is safe on disk: the stage ends here if it was told to stop.

    Raises:
        BaseException: whatever the handler of the signal raises, KeyboardInterrupt by default.
    """
    if _held is not None and _held.number is not None:
        _held.release()
