"""What `align serve` does about runs that died, and about those nobody was there to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import fake_program as fake
import pytest

from alignment.pipeline.approval import Decisions
from alignment.pipeline.ledger import Ledger, now
from alignment.pipeline.plan import build_plan

pytestmark = pytest.mark.usefixtures("server")


@pytest.fixture
def client() -> Iterator[Any]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as made:
        yield made


@pytest.fixture
def deployment(kept: Any, tmp_path: Path) -> UUID:
    """A deployment of the iteration that nobody serves."""
    from flows.definitions.iteration import iteration

    made: Any = iteration.to_deployment(
        name=tmp_path.name, parameters={"workspace": str(kept.workspace.resolve())}
    )
    return UUID(str(made.apply()))


def begun(client: Any, deployment: UUID, state: Any, process: str | None = None) -> Any:
    """A run of the deployment in a state that a process told of."""
    from prefect.states import Running

    from flows.definitions.run_labels import PROCESS

    run = client.create_flow_run_from_deployment(deployment)
    if state.is_final():
        client.set_flow_run_state(run.id, Running(), force=True)
    if process is not None:
        client.update_flow_run_labels(run.id, {PROCESS: process})
    client.set_flow_run_state(run.id, state, force=True)
    return run


def dead_process() -> str:
    """A process that had our number before us."""
    from flows.definitions.run_labels import this_process

    host, pid, born = this_process().rsplit(":", 2)
    return f"{host}:{pid}:{float(born) - 1000:.0f}"


def state_of(client: Any, run: Any) -> str:
    return str(client.read_flow_run(run.id).state_name)


def test_a_run_that_died_goes_on_and_others_are_left_alone(
    stages: Any, kept: Any, deployment: UUID, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.states import Cancelled, Failed, Running

    from flows.serving import recovery

    monkeypatch.setattr(recovery, "pause", lambda _program: 0.0)
    assert recovery.retry_died(kept, [deployment]) is None
    for state in (Failed(), Cancelled()):
        ended = begun(client, deployment, state)
        assert recovery.retry_died(kept, [deployment]) is None
        assert state_of(client, ended) == state.name
    died = begun(client, deployment, Running(), dead_process())
    retried = recovery.retry_died(kept, [deployment])
    assert retried is not None
    assert retried.id == died.id
    assert state_of(client, died) == "Scheduled"
    assert recovery.retry_died(kept, [deployment]) is None, "once is enough"


def test_what_somebody_cancels_is_never_taken_for_a_death(
    stages: Any, kept: Any, deployment: UUID, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.states import Cancelling, Crashed, Running

    from flows.serving import recovery

    monkeypatch.setattr(recovery, "pause", lambda _program: 0.0)
    # Its process is gone before Prefect has said the last word.
    ending = begun(client, deployment, Running(), dead_process())
    client.set_flow_run_state(ending.id, Cancelling(), force=True)
    assert recovery.retry_died(kept, [deployment]) is None
    assert state_of(client, ending) == "Cancelled"
    # Prefect calls a run that ends by SIGTERM crashed for a moment.
    client.set_flow_run_state(ending.id, Cancelling(), force=True)
    client.set_flow_run_state(ending.id, Crashed(), force=True)
    assert recovery.retry_died(kept, [deployment]) is None
    assert state_of(client, ending) == "Crashed"
    # Somebody wanted it after all, and then it died.
    client.set_flow_run_state(ending.id, Running(), force=True)
    client.set_flow_run_state(ending.id, Crashed(), force=True)
    retried = recovery.retry_died(kept, [deployment])
    assert retried is not None
    assert retried.id == ending.id


def test_a_retry_that_died_before_it_began_is_not_what_was_cancelled(
    stages: Any, kept: Any, deployment: UUID, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.states import AwaitingRetry, Cancelled, Cancelling, Crashed, Pending

    from flows.serving import recovery

    monkeypatch.setattr(recovery, "pause", lambda _program: 0.0)
    run = begun(client, deployment, Cancelled())
    for state in (Cancelling(), Cancelled(), AwaitingRetry(), Pending(), Crashed()):
        assert recovery.retry_died(kept, [deployment]) is None
        client.set_flow_run_state(run.id, state, force=True)
    retried = recovery.retry_died(kept, [deployment])
    assert retried is not None
    assert retried.id == run.id


def test_a_death_is_seen_behind_runs_that_had_nothing_to_do_with_it(
    stages: Any, kept: Any, deployment: UUID, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They began later: they waited in line, were missed, or did one version of many."""
    from prefect.states import Cancelled, Completed, Crashed, Failed

    from flows.definitions.program import program as flow
    from flows.serving import recovery

    monkeypatch.setattr(recovery, "pause", lambda _program: 0.0)
    made: Any = flow.to_deployment(
        name=f"{kept.workspace.parent.name}-whole",
        parameters={"workspace": str(kept.workspace.resolve())},
    )
    whole = UUID(str(made.apply()))
    both = [deployment, whole]
    died = begun(client, whole, Crashed())
    begun(client, deployment, Completed())
    begun(client, whole, Completed(name="Skipped"))
    missed = client.create_flow_run_from_deployment(whole)
    client.set_flow_run_state(missed.id, Cancelled(), force=True)
    retried = recovery.retry_died(kept, both)
    assert retried is not None
    assert retried.id == died.id
    client.set_flow_run_state(died.id, Crashed(), force=True)
    # Whatever failed or was cancelled since stands for it.
    for state in (Failed(), Cancelled()):
        begun(client, deployment, state)
        assert recovery.retry_died(kept, both) is None


def test_a_new_process_leaves_alone_what_somebody_cancelled(
    stages: Any, kept: Any, deployment: UUID, client: Any
) -> None:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId
    from prefect.states import Cancelled, Crashed

    from flows.serving.worker import go_on

    def count() -> int:
        mine = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
        return len(client.read_flow_runs(flow_run_filter=mine))

    run = begun(client, deployment, Cancelled())
    go_on(kept, [deployment])
    assert count() == 1
    client.set_flow_run_state(run.id, Crashed(), force=True)
    go_on(kept, [deployment])
    assert count() == 1, "it was cancelled all the same"
    begun(client, deployment, Crashed())
    go_on(kept, [deployment])
    assert count() == 3


def test_a_version_for_which_enough_waits_begins_when_served(
    stages: Any, deployment: UUID, client: Any, tmp_path: Path
) -> None:
    from deliveries_of_people import deliver, inbox_program, rows, run_what_can_be_done
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterDeploymentId

    from flows.serving.worker import go_on

    def count() -> int:
        mine = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment]))
        return len(client.read_flow_runs(flow_run_filter=mine))

    program = inbox_program(tmp_path / "people")
    run_what_can_be_done(program)
    go_on(program, [deployment])
    assert count() == 0, "rlhf-v1 waits for preferences"
    deliver(program, "week", rows("week"))
    go_on(program, [deployment])
    assert count() == 1


def test_nothing_is_retried_where_all_is_done_or_too_soon(
    stages: Any, kept: Any, deployment: UUID, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.states import Crashed

    from flows.serving import recovery

    died = begun(client, deployment, Crashed())
    monkeypatch.setattr(recovery, "pause", lambda _program: 60.0)
    assert recovery.retry_died(kept, [deployment]) is None
    monkeypatch.setattr(recovery, "pause", lambda _program: 0.0)
    fake.run_all(kept)
    assert recovery.retry_died(kept, [deployment]) is None
    assert state_of(client, died) == "Crashed"


def test_a_run_that_never_began_is_begun(
    stages: Any, kept: Any, deployment: UUID, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.states import Completed, Pending, Running

    from flows.definitions import dead_runs
    from flows.serving import recovery

    begun(client, deployment, Completed())
    starting = begun(client, deployment, Pending(), dead_process())  # of an earlier turn
    assert recovery.retry_died(kept, [deployment]) is None
    assert state_of(client, starting) == "Pending", "its process may be on its way"
    assert dead_runs.dead_runs(str(kept.workspace.resolve())) == []

    client.set_flow_run_state(starting.id, Completed(), force=True)
    monkeypatch.setattr(dead_runs, "NEVER_BEGAN", 0.0)
    lost = begun(client, deployment, Pending())
    found = dead_runs.dead_runs(str(kept.workspace.resolve()))
    assert [run.id for run in found] == [lost.id], "the doctor and `align run` see it too"
    retried = recovery.retry_died(kept, [deployment])
    assert retried is not None
    assert retried.id == lost.id
    assert state_of(client, lost) == "Scheduled"

    # Without a deployment of ours to begin it again it is closed.
    other = begun(client, deployment, Pending())
    assert dead_runs.close_dead_runs(str(kept.workspace.resolve())) == 1
    assert state_of(client, other) == "Crashed"
    # Begun again just now, still under the name of the process before.
    again = begun(client, deployment, Running(), dead_process())
    client.set_flow_run_state(again.id, Running(), force=True)
    assert client.read_flow_run(again.id).run_count == 2
    assert dead_runs.close_dead_runs(str(kept.workspace.resolve())) == 0


def test_deaths_in_a_row_are_answered_more_slowly(stages: Any, kept: Any) -> None:
    from flows.serving.recovery import LONGEST_PAUSE, pause

    ledger = Ledger(kept.workspace)
    node = build_plan(kept, Decisions.load(kept))[0]

    def ends(status: str) -> float:
        ledger.write_attempt(replace(ledger.begin(node, "0" * 64), status=status, ended=now()))
        return pause(kept)

    assert pause(kept) == 1.0
    assert [ends("killed") for _ in range(4)] == [1.0, 2.0, 4.0, 8.0]
    assert ends("failed") == 1.0, "only deaths in a row count"
    assert [ends("killed") for _ in range(11)][-1] == LONGEST_PAUSE
    fake.run_all(kept)
    assert pause(kept) == 1.0


def test_of_missed_runs_the_newest_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an invented client: only Prefect's own clock can mark runs as scheduled by it."""
    from flows.serving import recovery

    class Client:
        def __init__(self) -> None:
            self.dropped: list[str] = []

        def __enter__(self) -> Client:
            return self

        def __exit__(self, *_: object) -> None: ...

        def read_flow_runs(self, *, flow_run_filter: Any, sort: Any) -> list[Any]:
            """Newest first, of the one deployment, as the filter asks."""
            assert sort.name == "EXPECTED_START_TIME_DESC"
            assert [kind.name for kind in flow_run_filter.state.type.any_] == ["SCHEDULED"]
            before = flow_run_filter.expected_start_time.before_
            asked = flow_run_filter.deployment_id.any_
            return [run for run in runs if run.deployment in asked and run.at < before]

        def set_flow_run_state(self, id: str, state: Any, *, force: bool) -> None:
            assert force
            assert state.name == "Cancelled"
            self.dropped.append(id)

    def due(id: str, seconds: float, deployment: UUID, *, clocked: bool = True) -> Any:
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        return SimpleNamespace(id=id, at=at, deployment=deployment, auto_scheduled=clocked)

    mine, other = UUID(int=1), UUID(int=2)
    runs = [
        due("ahead", 600, mine),
        due("just now", -5, mine),
        due("asked for", -40, mine, clocked=False),
        due("newest", -60, mine),
        due("older", -1800, mine),
        due("oldest", -3600, mine),
        due("another's", -1800, other),
    ]
    client = Client()
    monkeypatch.setattr(recovery, "get_client", lambda **_: client)
    assert recovery.drop_missed([mine, other]) == 2
    assert client.dropped == ["older", "oldest"]
