"""An attempt's log file: log lines, progress messages, and the last traceback."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignment.utils.progress import Progress

log = logging.getLogger("alignment")


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Copy log lines and the traceback of an error into the attempt's log."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    except Exception:
        with path.open("a", encoding="utf-8") as file:
            file.write(traceback.format_exc())
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


class Logged:
    """A progress that also writes its messages, and what begins, to the attempt's log."""

    def __init__(self, inner: Progress):
        self._inner = inner

    def begin(self, label: str, total: int | None = None, unit: str = "it") -> None:
        log.info("%s: %s %s", label, "?" if total is None else total, unit)
        self._inner.begin(label, total, unit)

    def advance(self, amount: int = 1, **figures: float) -> None:
        self._inner.advance(amount, **figures)

    def say(self, message: str) -> None:
        log.info(message)
        self._inner.say(message)
