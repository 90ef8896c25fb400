"""Who hears what happens to a program: MLflow, Prefect, the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from alignment.config.program import ProgramConfig
from alignment.pipeline.node import Node
from alignment.pipeline.records import Attempt, Manifest


class Observer(Protocol):
    """Hears what the runner does. Its errors are reported and never lose a stage."""

    def program_started(self, program: ProgramConfig, plan: Sequence[Node]) -> None: ...

    def stage_started(self, attempt: Attempt) -> None: ...

    def stage_finished(self, attempt: Attempt, manifest: Manifest) -> None: ...

    def stage_failed(self, attempt: Attempt) -> None: ...

    def stage_cached(self, node: Node, manifest: Manifest) -> None: ...

    def program_finished(self) -> None: ...


def tell(
    observers: Sequence[Observer], say: Callable[[str], None], event: str, *values: Any
) -> None:
    """Call `event` of every observer; what one of them raises is said and goes no further."""
    for observer in observers:
        try:
            getattr(observer, event)(*values)
        except Exception as error:
            name = type(observer).__name__
            say(f"{name} could not note {event}: {type(error).__name__}: {error}")
