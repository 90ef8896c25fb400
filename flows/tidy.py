"""Housekeeping at the ends of a run: runs of dead processes are closed, events get sent."""

import logging
import time
from uuid import UUID

log = logging.getLogger("alignment.flows")

FLUSH_LIMIT = 4.0  # seconds


def close_dead_runs(workspace: str) -> int:
    """Mark flow runs of this workspace as Crashed that claim to run.

    To be called by the holder of the workspace's lock: nobody else can be running there. Returns
    how many there were.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import State, StateType
    from prefect.states import Crashed

    running = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))
    )
    closed = 0
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=running)
        ours = {run.id for run in runs if run.parameters.get("workspace") == workspace}
        for run in runs:
            if run.id in ours or _parent_of(client, run) in ours:
                state: State[None] = Crashed(
                    message="the process died; the ledger has what was finished"
                )
                client.set_flow_run_state(run.id, state, force=True)
                closed += 1
    return closed


def _parent_of(client: object, run: object) -> UUID | None:
    """The flow run that a subflow run was started by."""
    task_run_id = getattr(run, "parent_task_run_id", None)
    if task_run_id is None:
        return None
    from prefect.exceptions import ObjectNotFound

    try:
        task_run = client.read_task_run(task_run_id)  # type: ignore[attr-defined]
    except ObjectNotFound:
        return None  # its record was still on the way when the process died
    found: UUID | None = task_run.flow_run_id
    return found


def flush() -> None:
    """Send the last states and logs before a server of our own is stopped.

    Task states travel as events, which the server writes down a moment after it got them; without
    this the last ones would be shown as running for ever.
    """
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    started = time.monotonic()
    EventsWorker.drain_all(timeout=FLUSH_LIMIT)
    APILogWorker.drain_all(timeout=FLUSH_LIMIT)
    log.debug("flushed Prefect events in %.2f s", time.monotonic() - started)
