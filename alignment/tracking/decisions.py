"""Bring a person's decision into MLflow at once: aliases, tags, descriptions."""

from __future__ import annotations

import logging

from alignment.config.program import ProgramConfig
from alignment.errors import redact
from alignment.utils.locks import holder

log = logging.getLogger("alignment.tracking")


def note_decision(program: ProgramConfig) -> None:
    """Update MLflow from the workspace, unless a run that holds it does so anyway.

    What MLflow does not take now it gets with the next run: a warning says so.
    """
    if not program.tracking.enabled or holder(program.workspace) is not None:
        return
    from alignment.tracking.follow import tracking_lock
    from alignment.tracking.sync import Sync

    try:
        with tracking_lock(program.workspace):
            problems = Sync(program).step(alive=False)
    except Exception as error:  # whatever MLflow raises when its store is out of reach
        problems = [redact(str(error)).strip().partition("\n")[0]]
    if problems:
        log.warning("MLflow has not heard of the decision (%s); the next run tells it", problems[0])
