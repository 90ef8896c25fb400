"""Housekeeping at the ends of a run: runs of dead processes are closed, events get sent."""

import logging
import time
from typing import TYPE_CHECKING
from uuid import UUID

from flows.definitions.run_labels import PROCESS, labels_of, process_lives

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

log = logging.getLogger("alignment.flows")

FLUSH_LIMIT = 4.0  # seconds
JUST_BEGUN = 30.0  # seconds
NEVER_BEGAN = 120.0  # seconds after which a pending run has no process that is still starting
DIED = "the process died; the ledger has what was finished, and the next run goes on from there"
CANCELLED = "cancelled; the ledger has what was finished, and the next run goes on from there"


def close_dead_runs(workspace: str) -> int:
    """Mark flow runs of this workspace as Crashed whose process is gone, or as Cancelled those
    that somebody was cancelling, which must not be retried; returns how many.

    So are their task runs, which would be shown as running for ever; and their logs say what
    happened, which a process that is killed cannot.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import LogCreate
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterId,
        TaskRunFilter,
        TaskRunFilterState,
        TaskRunFilterStateType,
    )
    from prefect.client.schemas.objects import State, StateType
    from prefect.states import Cancelled, Crashed
    from prefect.types._datetime import DateTime

    closed = 0
    unended = TaskRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
    with get_client(sync_client=True) as client:
        for run in dead_runs(workspace):
            tasks = client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
                task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=unended)),
            )
            cancelled = run.state is not None and run.state.is_cancelling()
            said = CANCELLED if cancelled else DIED
            state: State[None] = (Cancelled if cancelled else Crashed)(message=said)
            for task in tasks:
                client.set_task_run_state(task.id, state, force=True)
            at = ", ".join(task.name for task in tasks)
            client.create_logs(
                [
                    LogCreate(
                        name="alignment.flows",
                        level=logging.ERROR,
                        message=f"{said}{f' (it was at {at})' if at else ''}",
                        timestamp=DateTime.now("UTC"),
                        flow_run_id=run.id,
                    )
                ]
            )
            client.set_flow_run_state(run.id, state, force=True)
            closed += 1
    return closed


def dead_runs(workspace: str) -> "list[FlowRun]":
    """Flow runs of a workspace that claim to begin, run or end, and whose process is gone."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    active = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    running = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=active)))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=running)
        ours = {run.id for run in runs if run.parameters.get("workspace") == workspace}
        theirs = [run for run in runs if run.id in ours or _parent_of(client, run) in ours]
    return [run for run in theirs if not _lives(run)]


def _lives(run: "FlowRun") -> bool:
    """Whether the process that said it does this run is still there, or is on its way."""
    if run.state is not None and run.state.is_pending():
        return not never_began(run)
    told = labels_of(run).get(PROCESS)
    if run.run_count > 1 and _age(run) < JUST_BEGUN:
        return True  # begun again: the label may still be that of the process before
    if told is None:  # it has just begun, or died before it could say who it is
        began = run.start_time or run.created
        return began is not None and time.time() - began.timestamp() < JUST_BEGUN
    return process_lives(str(told))


def never_began(run: "FlowRun") -> bool:
    """Whether a pending run's process died before it could begin: nobody would ever begin it.

    A worker's runs are left to it: what they run on may take its time, on another machine.
    """
    return run.work_pool_name is None and _age(run) > NEVER_BEGAN


def _age(run: "FlowRun") -> float:
    """Seconds since its state last changed."""
    return 0.0 if run.state is None else time.time() - run.state.timestamp.timestamp()


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
