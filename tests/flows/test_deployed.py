"""Flows that a deployment or a retry starts make their own runner, wait their turn, and say why
they do nothing."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from alignment.execution.runner import Runner
from alignment.pipeline.ledger import Ledger
from alignment.utils.locks import QueueSlot, workspace_lock


def states() -> dict[str, list[tuple[str, str]]]:
    """Flow name → (state, message) of its runs, newest first."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import FlowRunSort

    found: dict[str, list[tuple[str, str]]] = {}
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC):
            name = client.read_flow(run.flow_id).name
            message = run.state.message if run.state else ""
            found.setdefault(name, []).append((run.state_name or "", message or ""))
    return found


def inbox_program(program: Any) -> None:
    """The same, but people deliver."""
    path = program.workspace / "program.json"
    values = json.loads(path.read_text())
    values["intake"]["source"] = "inbox"
    values["orchestration"]["settle_seconds"] = 0
    path.write_text(json.dumps(values))


@pytest.mark.usefixtures("server")
def test_an_iteration_makes_its_own_runner(stages: Any, kept: Any) -> None:
    from flows.definitions.iteration import iteration

    iteration(workspace=str(kept.workspace))
    assert len(stages.ran) == len(Runner(kept).plan)
    assert states()["rlhf-iteration"][0] == ("Completed", "rlhf-v1 is done")
    iteration(workspace=str(kept.workspace))
    assert states()["rlhf-iteration"][0][0] == "NothingToDo"
    iteration("rlhf-v1", str(kept.workspace), from_stage="ppo")
    redone = [f"rlhf-v1/{name}" for name in ("ppo", "evaluate", "promote", "collect")]
    assert stages.ran[-4:] == redone
    attempts = Ledger(kept.workspace).attempts("rlhf-v1", "ppo")
    assert [attempt.status for attempt in attempts] == ["superseded", "done"]


@pytest.mark.usefixtures("server")
def test_a_version_without_preferences_waits(stages: Any, kept: Any) -> None:
    from flows.definitions.program import program as whole

    def before(context: Any) -> None:
        if context.stage == "collect":
            (context.out / "pairs.jsonl").write_text("")

    stages.before = before
    inbox_program(kept)
    whole(workspace=str(kept.workspace))
    assert {key.split("/")[0] for key in stages.ran} == {"base", "sft"}
    state, message = states()["rlhf-program"][0]
    assert state == "Waiting"
    assert "rlhf-v1 waits for preferences: 0 new comparisons are there" in message


@pytest.mark.usefixtures("server")
def test_intake_takes_files_and_says_that_a_version_may_begin(
    kept: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.definitions import intake as module

    told: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(module, "emit", lambda _w, event, **payload: told.append((event, payload)))
    inbox_program(kept)
    inbox = kept.workspace / "inbox"
    inbox.mkdir()
    row = {
        "conversation": [{"role": "user", "content": "question"}],
        "chosen": "good",
        "rejected": "bad",
        "strength": "better",
        "domain": "helpfulness",
    }
    (inbox / "week.jsonl").write_text(json.dumps(row) + "\n")
    (inbox / "broken.jsonl").write_text("no row\n" * 3)
    module.intake(workspace=str(kept.workspace))
    assert [event for event, _ in told] == [
        "align.batch.refused",
        "align.batch.accepted",
        "align.preferences.enough",
    ]
    assert told[-1][1]["comparisons"] == 1
    assert "1 accepted, 1 refused" in states()["rlhf-intake"][0][1]
    module.intake(workspace=str(kept.workspace))
    assert states()["rlhf-intake"][0][0] == "NothingNew"
    # Said again, for whoever missed it: the run it starts finds nothing to do, or waits in line.
    assert [event for event, _ in told[3:]] == ["align.preferences.enough"]


@pytest.mark.usefixtures("server")
def test_a_run_waits_for_the_workspace_and_a_second_one_leaves_it_to_the_first(
    stages: Any, kept: Any
) -> None:
    from flows.definitions.iteration import iteration

    line = QueueSlot(kept.workspace, "iteration-rlhf-v1-")
    assert line.join()
    iteration("rlhf-v1", str(kept.workspace))
    assert states()["rlhf-iteration"][0][0] == "Skipped"
    assert stages.ran == []
    line.leave()
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with workspace_lock(kept.workspace):
            entered.set()
            leave.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert entered.wait(10)
    threading.Timer(1.5, leave.set).start()
    began = time.monotonic()
    iteration("rlhf-v1", str(kept.workspace))
    assert time.monotonic() - began >= 1.0
    holder.join()
    assert stages.ran[-1] == "rlhf-v1/collect"
    assert QueueSlot(kept.workspace, "iteration-rlhf-v1-").join()


def test_a_deployment_is_named_after_its_program(program: Any) -> None:
    from flows.serving.deployments import deployments

    made = {item.flow_name: item for item in deployments(program)}
    assert set(made) == {"rlhf-intake", "rlhf-iteration", "rlhf-program"}
    assert {item.name for item in made.values()} == {"fake"}
    given = {item.parameters["workspace"] for item in made.values()}
    assert given == {str(program.workspace.resolve())}
    schema = made["rlhf-iteration"]._parameter_openapi_schema.model_dump()
    assert "pattern" in json.dumps(schema["properties"]["version"])
    assert "ppo" in json.dumps(schema["properties"]["from_stage"])


def test_a_process_is_known_again(tmp_path: Path) -> None:
    from flows.definitions.run_labels import process_lives, this_process

    me = this_process()
    assert process_lives(me)
    host, pid, born = me.rsplit(":", 2)
    assert not process_lives(f"{host}:{pid}:{float(born) - 100:.0f}")
    assert not process_lives(f"{host}:{2**22 + 1}:{born}")
    assert process_lives(f"elsewhere:{pid}:0")
