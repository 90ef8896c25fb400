"""Observers of a run: MLflow, Prefect, the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from alignment.config.program import ProgramConfig
from alignment.pipeline.node import Node
from alignment.pipeline.records import Attempt, Manifest


class Observer(Protocol):
    """Is notified of what the runner does. Its errors are reported and never stop a stage."""

    def program_started(self, program: ProgramConfig, plan: Sequence[Node]) -> None: ...

    def stage_started(self, attempt: Attempt) -> None: ...

    def stage_finished(self, attempt: Attempt, manifest: Manifest) -> None: ...

    def stage_failed(self, attempt: Attempt) -> None: ...

    def stage_cached(self, node: Node, manifest: Manifest) -> None: ...

    def program_finished(self) -> None: ...


def notify(
    observers: Sequence[Observer], say: Callable[[str], None], event: str, *values: Any
) -> None:
    """Call the method `event` of every observer; an error in one is passed to `say`, not raised.

    Args:
        observers: whom to notify.
        say: called with a line on each error.
        event: name of a method of `Observer`.
        values: its arguments.
    """
    for observer in observers:
        try:
            getattr(observer, event)(*values)
        except Exception as error:
            name = type(observer).__name__
            say(f"{name} could not note {event}: {type(error).__name__}: {error}")
