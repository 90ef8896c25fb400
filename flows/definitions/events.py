"""Events of a workspace: what happened, for whoever listens. Deployments start on some of them."""

import logging
from pathlib import Path
from typing import Any

from alignment.utils.files import digest_json

FILE_COMPLETE = "align.file.complete"
"""Files lie complete in the inbox. Starts `intake`."""
BATCH_ACCEPTED = "align.batch.accepted"
BATCH_REFUSED = "align.batch.refused"
PREFERENCES_ENOUGH = "align.preferences.enough"
"""As many new comparisons have been accepted as a version needs. Starts `iteration`."""
PAIRS_WAITING = "align.pairs.waiting"
"""Pairs of answers lie in the outbox, to be judged by people."""
VERSION_DONE = "align.version.done"
APPROVAL_AWAITED = "align.approval.awaited"

PLACE = "align.workspace"
"""Label of an event's resource: the directory, by which prefect.yaml tells workspaces apart."""

log = logging.getLogger("alignment.flows")


def resource(workspace: Path) -> str:
    """The name under which a workspace is known in events."""
    return f"align.workspace.{digest_json(str(workspace.resolve()))[:12]}"


def emit(workspace: Path, event: str, **payload: Any) -> None:
    """Say that something happened.

    Events are for people and schedules; what is done is in the ledger. So an event that is lost
    with its server loses nothing: intake and iterations are also started by the clock.
    """
    from prefect.events import emit_event

    emit_event(
        event,
        resource={
            "prefect.resource.id": resource(workspace),
            "prefect.resource.name": workspace.resolve().name,
            PLACE: str(workspace.resolve()),
        },
        payload={"workspace": str(workspace.resolve()), **payload},
    )
    log.info("event %s %s", event, payload)
