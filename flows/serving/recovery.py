"""How `align serve` continues runs whose process died.

| the newest run of the versions' deployments | what happens |
|---|---|
| pending, and its process died before it began | scheduled again at once |
| running or cancelling, and its process is alive | nothing |
| running, and its process is gone | marked Crashed, then as below |
| crashed (killed) | scheduled again after `pause`; finished stages are skipped |
| failed, or cancelled by a person | left alone |
| skipped, or cancelled before it began | ignored: the run before it counts |
"""

import time
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterStartTime,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled, Scheduled
from prefect.types._datetime import DateTime

from alignment.config.program import ProgramConfig
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.readiness import frontier
from flows.definitions.dead_runs import close_dead_runs, in_state, never_began
from flows.definitions.session import SKIPPED

LONGEST_PAUSE = 600.0
LOOKED_AT = 50  # newest runs of a deployment; few of them are idle
MISSED = 30.0  # seconds after which a scheduled run counts as missed


def retry_died(program: ProgramConfig, deployment_ids: list[UUID]) -> FlowRun | None:
    """Close the runs of dead processes. Schedule the last one again if it died or never began.

    `deployment_ids` are those of the deployments that work on versions. Returns the run that was
    scheduled again, or None.
    """
    with get_client(sync_client=True) as client:
        lost = _lost(client, deployment_ids)
        if lost is not None:
            return lost
        close_dead_runs(str(program.workspace.resolve()))
        if _busy(client, deployment_ids):
            return None
        last = _died(client, deployment_ids)
        if last is None or last.state is None:
            return None
        progress = frontier(program)
        if progress.version is None or progress.waiting is not None:
            return None
        if time.time() - last.state.timestamp.timestamp() < pause(program):
            return None
        state: State[None] = Scheduled(message="its process died; it continues from the ledger")
        client.set_flow_run_state(last.id, state, force=True)
        return last


def pause(program: ProgramConfig) -> float:
    """Seconds until a killed run continues: 1, 2, 4 … after each death in a row at one stage."""
    left = frontier(program).left
    if not left:
        return 1.0
    deaths = 0
    for attempt in reversed(Ledger(program.workspace).attempts(left[0].version, left[0].stage)):
        if attempt.status != "killed":
            break
        deaths += 1
    return float(min(LONGEST_PAUSE, 2 ** min(max(deaths - 1, 0), 10)))


def drop_missed(deployment_ids: list[UUID]) -> int:
    """Cancel the missed scheduled runs of each deployment, except the newest.

    One run does the work of all that were missed. Returns how many were dropped.
    """
    dropped = 0
    with get_client(sync_client=True) as client:
        for deployment in deployment_ids:
            missed = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(
                    deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
                    state=in_state(StateType.SCHEDULED),
                    expected_start_time=FlowRunFilterExpectedStartTime(
                        before_=DateTime.now("UTC").subtract(seconds=MISSED)
                    ),
                ),
                sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            )
            clocked = [run for run in missed if run.auto_scheduled]
            for run in clocked[1:]:
                state: State[None] = Cancelled(message="missed; a later run does its work")
                client.set_flow_run_state(run.id, state, force=True)
                dropped += 1
    return dropped


def deployment_ids(names: list[str]) -> list[UUID]:
    """Ids of deployments by `flow/deployment`."""
    with get_client(sync_client=True) as client:
        return [client.read_deployment_by_name(name).id for name in names]


def _lost(client: SyncPrefectClient, ids: list[UUID]) -> FlowRun | None:
    """Schedule again a run whose process was killed while it started; None if there is none."""
    pending = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=ids), state=in_state(StateType.PENDING)
    )
    for run in client.read_flow_runs(flow_run_filter=pending):
        if never_began(run):
            state: State[None] = Scheduled(message="its process died before it began")
            client.set_flow_run_state(run.id, state, force=True)
            return run
    return None


def _busy(client: SyncPrefectClient, ids: list[UUID]) -> bool:
    active = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=ids),
        state=in_state(StateType.RUNNING, StateType.PENDING, StateType.CANCELLING),
    )
    return bool(client.read_flow_runs(flow_run_filter=active, limit=1))


def cancelled_last(deployment_ids: list[UUID]) -> bool:
    """Whether a person cancelled the last run that worked. Then nothing continues by itself."""
    with get_client(sync_client=True) as client:
        last = _last_begun(client, deployment_ids)
        return bool(last) and _somebody_cancelled(client, last[0])


def _died(client: SyncPrefectClient, ids: list[UUID]) -> FlowRun | None:
    """The newest run that died, unless a later run failed or was cancelled.

    A later run that completed in another deployment does not count: it did one version, not all.
    """
    for run in _last_begun(client, ids):
        if run.state is None or run.state.type == StateType.COMPLETED:
            continue
        if run.state.type != StateType.CRASHED or _somebody_cancelled(client, run):
            return None
        return run
    return None


def _last_begun(client: SyncPrefectClient, ids: list[UUID]) -> list[FlowRun]:
    """The last run of each deployment that began, newest first.

    Skipped runs and runs that were cancelled before they began do not count.
    """
    newest = []
    for id in ids:
        begun = FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[id]),
            start_time=FlowRunFilterStartTime(is_null_=False),  # its end counts where it has none
        )
        runs = client.read_flow_runs(
            flow_run_filter=begun, sort=FlowRunSort.START_TIME_DESC, limit=LOOKED_AT
        )
        newest += [run for run in runs if not _idle(run)][:1]
    return sorted(newest, key=_began, reverse=True)


def _began(run: FlowRun) -> float:
    return run.start_time.timestamp() if run.start_time else 0.0


def _idle(run: FlowRun) -> bool:
    return run.state is not None and (
        run.state.name == SKIPPED or (run.state.type == StateType.CANCELLED and run.run_count == 0)
    )


def _somebody_cancelled(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether a person cancelled it and nobody asked for it again since.

    Prefect reports a cancelled run as crashed for a moment.
    """
    for state in reversed(client.read_flow_run_states(run.id)):
        if state.type in (StateType.CANCELLING, StateType.CANCELLED):
            return True
        if state.type in (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING):
            return False
    return False
