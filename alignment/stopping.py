"""A polite end: a stage that is told to stop goes on to its next checkpoint first.

Ctrl-C and SIGTERM (Prefect's cancel, `align down`, a lost parent) are held back while a stage
works. Where a loop could write a checkpoint it asks `asked`, writes one out of turn, and calls
`reached`: then the signal takes its course. It does so as well after a grace period, at a second
Ctrl-C, and once the stage is done.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from alignment import distributed

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Held:
    """Signals that wait, and the handlers they are meant for."""

    def __init__(self, grace: float, say: Callable[[str], None]):
        self.number: int | None = None
        self._grace, self._say = grace, say
        self._timer: threading.Timer | None = None
        self._over = False
        self._handlers: dict[int, Any] = {}

    def hold(self) -> None:
        """From now on. What is ignored stays ignored, as in a shell's background jobs."""
        for number in SIGNALS:
            before = signal.getsignal(number)
            if before not in (None, signal.SIG_IGN):
                self._handlers[number] = before
                signal.signal(number, self._arrived)

    def release(self) -> None:
        """Put the handlers back and let the signal that waits, if any, take its course."""
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}
        waiting, self.number = self.number, None
        if waiting is not None:
            signal.raise_signal(waiting)

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        if self.number is None:
            self.number = number
            self._timer = threading.Timer(self._grace, self._expire, (number,))
            self._timer.daemon = True
            self._timer.start()
            again = "; Ctrl-C again: at once" if number == signal.SIGINT else ""
            self._say(f"stops at the next checkpoint, in {self._grace:.0f} s at the latest{again}")
        elif self._over or number == signal.SIGINT:
            self.release()

    def _expire(self, number: int) -> None:
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
