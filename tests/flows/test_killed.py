"""kill -9 of a run: its servers go with it, MLflow says so, and the next run goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from alignment.pipeline.approval import Decisions
from alignment.pipeline.plan import build_plan

SCRIPT = Path(__file__).with_name("killed_run.py")


def start(workspace: Path, hang: str) -> subprocess.Popen[str]:
    """The script, with what it prints readable."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW_"))}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(workspace), hang],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def test_killed_and_resumed(program: Any) -> None:
    workspace = program.workspace
    first = start(workspace, "rlhf-v1/select")
    assert first.stdout is not None
    assert any(line.startswith("waiting") for line in first.stdout)
    children = psutil.Process(first.pid).children(recursive=True)
    assert len(children) >= 2  # the Prefect server and the one that writes to MLflow
    first.kill()
    first.wait()
    first.stdout.close()
    _gone, alive = psutil.wait_procs(children, timeout=60)
    assert not alive, [process.cmdline() for process in alive]
    runs = mlflow_runs(program)
    assert runs["rlhf-v1/select#1"] == "KILLED"
    assert runs["rlhf-v1/sample#1"] == "FINISHED"
    assert runs["RLHF-V1"] == "KILLED"

    second = start(workspace, "-")
    output, _ = second.communicate(timeout=300)
    assert second.returncode == 0, output
    finished = [node.key for node in build_plan(program, Decisions.load(program))]
    done_before = finished.index("rlhf-v1/select")
    assert f"ran {len(finished) - done_before}" in output
    assert "Traceback" not in output
    assert "Error" not in output
    runs = mlflow_runs(program)
    assert runs["rlhf-v1/select#1"] == "KILLED"
    assert runs["rlhf-v1/select#2"] == "FINISHED"
    assert runs["RLHF-V1"] == "FINISHED"
    assert set(prefect_states(workspace)) <= {"Completed", "Crashed", "Cached"}


def mlflow_runs(program: Any) -> dict[str, str]:
    """Attempt or version → status."""
    from alignment.tracking.sync import Sync

    sync = Sync(program)
    found = sync.client.search_runs([sync.store.experiment], max_results=500)
    return {
        run.data.tags.get("rlhf.attempt", run.info.run_name.removesuffix(" ★")): run.info.status
        for run in found
    }


def prefect_states(workspace: Path) -> list[str]:
    """States of all flow runs in the workspace's own database."""
    import sqlite3
    from contextlib import closing

    time.sleep(0.5)
    with closing(sqlite3.connect(workspace / "prefect" / "prefect.db")) as connection:
        return [row[0] for row in connection.execute("select state_name from flow_run")]
