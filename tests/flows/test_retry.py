"""`prefect flow-run retry`, or Retry in Prefect's page: finished stages are shown as cached."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from served_run import ask_for_version, carry_out, keep_program

from alignment.errors import DataError


def last_states(run: UUID, keys: Collection[str]) -> dict[str, str]:
    """Stage → state of its newest task run, as Prefect's page shows it."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    of_run = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
    with get_client(sync_client=True) as client:
        tasks = client.read_task_runs(flow_run_filter=of_run)
    begun = [task for task in tasks if task.start_time is not None and task.name in keys]
    return {
        task.name: task.state_name or ""
        for task in sorted(begun, key=lambda task: str(task.start_time))
    }


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("ended", ["Failed", "Cancelled"])
def test_a_run_that_ended_early_goes_on(
    stages: Any, program: Any, ended: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL
    from prefect.states import Cancelled

    from flows.definitions import session

    # This process is nobody's child.
    monkeypatch.setattr(session, "end_with_parent", lambda _grace: None)
    keep_program(program)

    def before(context: Any) -> None:
        if context.stage == "select":
            raise DataError("row 3 is bad")

    stages.before = before
    run = ask_for_version(program.workspace, tmp_path.name)
    assert carry_out(run)[0] == "Failed"
    assert stages.ran[-1] == "rlhf-v1/sample"
    done = list(stages.ran)
    with get_client(sync_client=True) as client:
        if ended == "Cancelled":
            client.set_flow_run_state(run, Cancelled(), force=True)
        asked = subprocess.run(
            [sys.executable, "-m", "prefect", "flow-run", "retry", str(run)],
            env={**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())},
            capture_output=True,
            text=True,
            check=False,
        )
        assert asked.returncode == 0, asked.stdout + asked.stderr
        assert client.read_flow_run(run).state_name == "Scheduled"

        stages.before = lambda _context: None
        assert carry_out(run) == ("Completed", "rlhf-v1 is done")
        assert stages.ran[: len(done)] == done
        assert stages.ran[len(done)] == "rlhf-v1/select"
        assert len(stages.ran) == len(set(stages.ran)), "nothing is done twice"
    of_version = [key for key in done if key.startswith("rlhf-v1/")]
    expected = dict.fromkeys(of_version, "Cached")
    expected |= dict.fromkeys(stages.ran[len(done) :], "Completed")
    until = time.monotonic() + 30
    while (shown := last_states(run, expected)) != expected and time.monotonic() < until:
        time.sleep(0.3)  # states of tasks travel as events, and may come a moment later
    assert shown == expected
