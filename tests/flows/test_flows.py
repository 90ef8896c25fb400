"""Prefect conducts; the ledger decides what is done; errors come out as they went in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignment.errors import DataError
from alignment.execution.runner import Runner
from alignment.pipeline.approval import Decisions
from alignment.pipeline.plan import build_plan


def test_no_postponed_annotations() -> None:
    """Prefect cannot resolve them when a deployment starts."""
    modules = (Path(__file__).parents[2] / "flows").rglob("*.py")
    texts = {path: path.read_text() for path in modules}
    ours = {path for path, text in texts.items() if "\n@flow" in text or "\n@task" in text}
    assert len(ours) > 3
    assert not [path for path in ours if "from __future__ import annotations\n" in texts[path]]


def test_reward_models_form_a_group(program: Any) -> None:
    from alignment.pipeline.shared_stages import groups

    nodes = [
        node for node in build_plan(program, Decisions.load(program)) if node.version == "rlhf-v1"
    ]
    found = [[node.stage for node in group] for group in groups(nodes, program)]
    together = [group for group in found if len(group) > 1]
    assert together == [["reward_helpfulness", "reward_safety"], ["evaluate", "collect"]]
    assert sorted(stage for group in found for stage in group) == sorted(n.stage for n in nodes)
    assert found[-1] == ["promote"]


def read_runs(since: datetime) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Flow run name → state; task run name → states of its runs, as Prefect's pages show them.

    The server is shared: of runs that began before `since` nothing is told.
    """
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        flows = {
            run.name: run.state_name or ""
            for run in client.read_flow_runs()
            if run.start_time and run.start_time >= since
        }
        tasks: dict[str, list[str]] = {}
        for run in client.read_task_runs():
            if run.start_time and run.start_time >= since:
                tasks.setdefault(run.name, []).append(run.state_name or "")
    return flows, tasks


@pytest.mark.usefixtures("server")
def test_every_stage_once_then_cached(stages: Any, program: Any) -> None:
    from flows.local_run import conduct

    began = datetime.now(UTC)
    with Runner(program) as runner:
        conduct(runner, runner.plan)
        assert stages.ran == [node.key for node in runner.plan]
        conduct(runner, runner.plan)
        assert len(stages.ran) == len(runner.plan)
    flows, tasks = read_runs(began)
    assert {"base", "sft", "rlhf-v1"} <= set(flows)
    assert {flows["base"], flows["sft"]} == {"Completed"}
    # Subflows have task runs of their own; task states may arrive a moment later.
    stage_tasks = {name: states for name, states in tasks.items() if "/" in name}
    assert set(stage_tasks) <= {node.key for node in build_plan(program, Decisions.load(program))}
    assert sorted(stage_tasks["base/prepare"]) == ["Cached", "Completed"]


@pytest.mark.usefixtures("server")
def test_a_final_state_that_is_told_twice(
    stages: Any, program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's answer to the second lacks what the flow returned."""
    from prefect import flow_engine
    from prefect.states import State

    from flows.local_run import conduct

    propose, twice = flow_engine.propose_state_sync, []

    def late(client: Any, state: State, **named: Any) -> State:
        answer = propose(client, state, **named)
        if not answer.is_final():
            return answer
        twice.append(answer.name)
        return State(type=answer.type, name=answer.name, message=answer.message)

    monkeypatch.setattr(flow_engine, "propose_state_sync", late)
    with Runner(program) as runner:
        conduct(runner, runner.plan)
        assert stages.ran == [node.key for node in runner.plan]
    assert set(twice) == {"Completed"}


@pytest.mark.usefixtures("server")
def test_a_flow_that_fails_for_lack_of_a_result_is_not_done(
    stages: Any, program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.exceptions import MissingResult

    from flows.local_run import conduct

    def fails(*_given: Any) -> None:
        raise MissingResult("not there")

    monkeypatch.setattr("flows.definitions.iteration.carry_out", fails)
    with Runner(program) as runner, pytest.raises(MissingResult, match="not there"):
        conduct(runner, runner.plan)
    assert stages.ran == []


@pytest.mark.usefixtures("server")
def test_failure_comes_out_unchanged(
    stages: Any, program: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    from flows.local_run import conduct

    raised = DataError("row 3 is bad", where="x.jsonl:3", remedy="mend it")

    def before(context: Any) -> None:
        if context.stage == "select":
            raise raised

    stages.before = before
    with Runner(program) as runner:
        with pytest.raises(DataError) as caught:
            conduct(runner, runner.plan)
        assert caught.value is raised
        assert stages.ran[-1] == "rlhf-v1/sample"
        stages.before = lambda _context: None
        conduct(runner, runner.plan)
    assert stages.ran[-1] == runner.plan[-1].key
    assert stages.ran.count("rlhf-v1/sample") == 1
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err


@pytest.mark.usefixtures("server")
def test_side_by_side_where_the_runner_allows(
    stages: Any, program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from flows.local_run import conduct

    meet = threading.Barrier(2, timeout=30)
    pairs = ("reward_helpfulness", "reward_safety", "evaluate", "collect")
    stages.before = lambda context: meet.wait() if context.stage in pairs else None
    monkeypatch.setattr(Runner, "parallel", True)
    monkeypatch.setattr(Runner, "isolated", lambda _self, _node: False)  # the stages are invented
    with Runner(program) as runner:
        conduct(runner, runner.plan)  # would break the barrier one after the other
    assert len(stages.ran) == len(runner.plan)


@pytest.mark.parametrize(("signals", "told"), [(0, 0), (1, 1), (2, 2)])
def test_stages_in_threads_are_told_of_ctrl_c(signals: int, told: int) -> None:
    from flows.definitions.iteration import wait_for

    left = [signals]
    interrupts: list[int] = []
    waited: list[str] = []

    class Future:
        def wait(self) -> None:
            if left[0]:
                left[0] -= 1
                raise KeyboardInterrupt
            waited.append("ended")

    runner: Any = SimpleNamespace(interrupt=lambda: interrupts.append(1))
    futures = [Future(), Future()]
    if signals:
        with pytest.raises(KeyboardInterrupt):
            wait_for(runner, futures)
    else:
        wait_for(runner, futures)
    assert len(interrupts) == told
    assert len(waited) == (0 if signals == 2 else 2)


@pytest.mark.usefixtures("server")
def test_runs_of_dead_processes_are_closed(stages: Any, program: Any) -> None:
    from prefect import task
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
    from prefect.states import Running

    from flows.definitions.dead_runs import close_dead_runs
    from flows.definitions.program import program as flow
    from flows.definitions.run_labels import PROCESS, this_process

    def begun(workspace: str, process: str) -> Any:
        run = client.create_flow_run(flow, parameters={"workspace": workspace}, state=Running())
        client.update_flow_run_labels(run.id, {PROCESS: process})
        return run

    @task
    def stage() -> None: ...

    host, pid, born = this_process().rsplit(":", 2)
    with get_client(sync_client=True) as client:
        dead = begun("/somewhere", f"{host}:{pid}:{float(born) - 1000:.0f}")  # its pid is ours now
        alive = begun("/somewhere", this_process())
        elsewhere = begun("/elsewhere", "another-host:1:0")
        at_work = [
            client.create_task_run(stage, run.id, dynamic_key="0", state=Running(), name="v1/ppo")
            for run in (dead, alive)
        ]
        unknown = client.create_flow_run(
            flow, parameters={"workspace": "/somewhere"}, state=Running()
        )
        assert close_dead_runs("/somewhere") == 1
        states = {
            run.id: client.read_flow_run(run.id).state_name
            for run in (dead, alive, elsewhere, unknown)
        }
        tasks = [client.read_task_run(one.id).state_name for one in at_work]
        wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[dead.id]))
        logs = [line.message for line in client.read_logs(wanted)]
    assert states[dead.id] == "Crashed"
    assert {states[run.id] for run in (alive, elsewhere, unknown)} == {"Running"}
    assert tasks == ["Crashed", "Running"]
    assert len(logs) == 1
    assert "it was at v1/ppo" in logs[0]
