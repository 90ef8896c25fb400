"""Housekeeping at the end of a run: close the runs of dead processes, send pending events."""

import logging
import time
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import LogCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.events.worker import EventsWorker
from prefect.exceptions import ObjectNotFound
from prefect.logging.handlers import APILogWorker
from prefect.states import Cancelled, Crashed
from prefect.types._datetime import DateTime

from flows.definitions.run_labels import PROCESS, labels_of, process_lives

log = logging.getLogger("alignment.flows")

FLUSH_LIMIT = 4.0  # seconds
JUST_BEGUN = 30.0  # seconds
NEVER_BEGAN = 120.0  # seconds after which a pending run has no process that is still starting
DIED = "the process died; the ledger has the finished stages, and the next run continues from there"
CANCELLED = "cancelled; the ledger has the finished stages, and the next run continues from there"


def close_dead_runs(workspace: str) -> int:
    """Close flow runs of this workspace whose process is gone; returns how many.

    A run becomes Crashed, or Cancelled if a person was cancelling it (such a run must not be
    retried). Its task runs get the same state; otherwise Prefect would show them as running for
    ever. Its log says what happened, because a killed process could not.
    """
    unended = TaskRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING])
    with get_client(sync_client=True) as client:
        dead = dead_runs(workspace)
        for run in dead:
            tasks = client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])),
                task_run_filter=TaskRunFilter(state=TaskRunFilterState(type=unended)),
            )
            cancelled = run.state is not None and run.state.is_cancelling()
            message = CANCELLED if cancelled else DIED
            state: State[None] = (Cancelled if cancelled else Crashed)(message=message)
            for task in tasks:
                client.set_task_run_state(task.id, state, force=True)
            at = ", ".join(task.name for task in tasks)
            client.create_logs(
                [
                    LogCreate(
                        name="alignment.flows",
                        level=logging.ERROR,
                        message=f"{message}{f' (it was at {at})' if at else ''}",
                        timestamp=DateTime.now("UTC"),
                        flow_run_id=run.id,
                    )
                ]
            )
            client.set_flow_run_state(run.id, state, force=True)
    return len(dead)


def in_state(*types: StateType) -> FlowRunFilterState:
    """A filter for flow runs in one of these states."""
    return FlowRunFilterState(type=FlowRunFilterStateType(any_=list(types)))


def dead_runs(workspace: str) -> list[FlowRun]:
    """Pending, running or cancelling flow runs of a workspace whose process is gone."""
    active = in_state(StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(state=active))
        ours = {run.id for run in runs if run.parameters.get("workspace") == workspace}
        theirs = [run for run in runs if run.id in ours or _parent_of(client, run) in ours]
    return [run for run in theirs if not _lives(run)]


def _lives(run: FlowRun) -> bool:
    """Whether the process of this run still exists, or may still be starting."""
    if run.state is not None and run.state.is_pending():
        return not never_began(run)
    process = labels_of(run).get(PROCESS)
    if run.run_count > 1 and _age(run) < JUST_BEGUN:
        return True  # restarted: the label may still be that of the previous process
    if process is None:  # it has just begun, or died before it could set its label
        began = run.start_time or run.created
        return began is not None and time.time() - began.timestamp() < JUST_BEGUN
    return process_lives(str(process))


def never_began(run: FlowRun) -> bool:
    """Whether the process of a pending run died before the run began.

    Runs of a worker are left to the worker: its machine may take a while.
    """
    return run.work_pool_name is None and _age(run) > NEVER_BEGAN


def _age(run: FlowRun) -> float:
    """Seconds since its state last changed."""
    return 0.0 if run.state is None else time.time() - run.state.timestamp.timestamp()


def _parent_of(client: SyncPrefectClient, run: FlowRun) -> UUID | None:
    """The flow run that a subflow run was started by."""
    if run.parent_task_run_id is None:
        return None
    try:
        return client.read_task_run(run.parent_task_run_id).flow_run_id
    except ObjectNotFound:
        return None  # its record was still on the way when the process died


def flush() -> None:
    """Send the last states and logs before we stop our own server.

    Task states travel as events, which the server stores with a delay. Without this, Prefect would
    show the last tasks as running for ever.
    """
    started = time.monotonic()
    EventsWorker.drain_all(timeout=FLUSH_LIMIT)
    APILogWorker.drain_all(timeout=FLUSH_LIMIT)
    log.debug("flushed Prefect events in %.2f s", time.monotonic() - started)
