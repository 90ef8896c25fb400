"""Observers of a run: MLflow, Prefect, the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from alignment.config.program import ProgramConfig
from alignment.pipeline.node import Node
from alignment.pipeline.records import Attempt, Manifest


class Observer(Protocol):
    """Is notified of what the runner does; a subclass overrides what it wants to hear.

    Its errors are reported and never stop a stage.
    """

    def program_started(self, program: ProgramConfig, plan: Sequence[Node]) -> None:
        return

    def stage_started(self, attempt: Attempt) -> None:
        return

    def stage_finished(self, attempt: Attempt, manifest: Manifest) -> None:
        return

    def stage_failed(self, attempt: Attempt) -> None:
        return

    def stage_cached(self, node: Node, manifest: Manifest) -> None:
        return

    def program_finished(self) -> None:
        return


def notify(
    observers: Sequence[Observer], say: Callable[[str], None], event: str, *values: Any
) -> None:
    """Call the method `event` of every observer; an error in one is passed to `say`, not raised."""
    for observer in observers:
        try:
            getattr(observer, event)(*values)
        except Exception as error:
            name = type(observer).__name__
            say(f"{name} could not note {event}: {type(error).__name__}: {error}")
