"""Stores on a server, read-only, deleted or broken off: no stage is lost, the message says what
to do, and a rebuild brings everything back."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alignment.cli.mlflow import rebuild as rebuild_verb
from alignment.errors import AlignError
from alignment.pipeline.approval import Decisions
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.plan import build_plan
from alignment.tracking.observer import tracker
from alignment.tracking.rebuild import catch_up, rebuild
from alignment.tracking.sync import Sync


def all_done(program: Any) -> bool:
    ledger = Ledger(program.workspace)
    return all(
        ledger.current(node.version, node.stage)
        for node in build_plan(program, Decisions.load(program))
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server on loopback."""
    root = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (root / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
             "--workers", "1", "--backend-store-uri", f"sqlite:///{root}/server.db",
             "--artifacts-destination", str(root / "files")],
            stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{address}/health", process)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.fixture
def read_only(server: str) -> Iterator[str]:
    """The same server for people who may only read."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("readonly.py")), server],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 240
    while time.monotonic() < until:
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise AssertionError("the server did not come up")


def test_a_server_holds_what_a_file_holds_and_is_rebuilt(
    server: str, stages: Any, program: Any, make_program: Any, run_all: Any, dump: Any
) -> None:
    local = program
    run_all(local)
    Sync(local).step(alive=False)
    expected = dump(Sync(local).store)
    remote = make_program(tracking={"uri": server})
    said: list[str] = []
    run_all(remote, tracker(remote, said.append))  # nothing to run: it catches up
    assert said == []
    assert dump(Sync(remote).store) == expected
    done = rebuild(remote)
    assert done.problems == []
    assert done.kept is not None
    assert "before" in done.kept
    again = dump(Sync(remote).store)
    again.pop("registry")  # models stay registered: they are found again by their digests
    expected.pop("registry")
    assert again == expected


def test_a_server_that_only_reads(
    read_only: str, server: str, stages: Any, make_program: Any, run_all: Any, dump: Any
) -> None:
    program = make_program(name="kept-out", tracking={"uri": read_only})
    said: list[str] = []
    run_all(program, tracker(program, said.append))
    assert all_done(program)
    assert len(said) <= 2
    assert "read only" in said[-1]
    assert "no stage is lost" in said[-1]
    assert "align mlflow rebuild" in said[-1]
    with pytest.raises(AlignError, match="cannot be written") as caught:
        rebuild(program)
    assert "the ledger is whole" in str(caught.value.remedy)
    allowed = make_program(name="kept-out", tracking={"uri": server})
    assert catch_up(allowed) == []
    runs = dump(Sync(allowed).store)
    assert runs["RLHF-V2"]["status"] == "FINISHED"


def test_a_deleted_database_comes_back(
    stages: Any,
    program: Any,
    run_all: Any,
    dump: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run_all(program)
    Sync(program).step(alive=False)
    expected = dump(Sync(program).store)
    # In another place, since this process still holds the database open.
    moved = program.workspace.with_name("moved")
    shutil.copytree(
        program.workspace, moved, ignore=shutil.ignore_patterns("mlflow.db*", "mlartifacts")
    )
    monkeypatch.chdir(moved.parent)
    rebuild_verb(workspace=Path("moved"))
    told = capsys.readouterr().out
    assert "runs written to sqlite:///" in told
    assert "old history" not in told
    found = dump(Sync(program.model_copy(update={"workspace": moved})).store)
    assert found.keys() == expected.keys()
    for key, run in expected.items():
        assert found[key] == run, key


def test_deleted_while_the_program_runs(stages: Any, program: Any, run_all: Any, dump: Any) -> None:
    gone: list[str] = []

    def before(context: Any) -> None:
        if context.stage == "select" and not gone:
            gone.append(context.version)
            for path in program.workspace.glob("mlflow.db*"):
                path.unlink()

    stages.before = before
    run_all(program, tracker(program, gone.append))
    assert all_done(program)
    live = rebuild(program)
    assert live.problems == []
    assert dump(Sync(program).store)["RLHF-V2"]["status"] == "FINISHED"


def test_killed_while_writing(stages: Any, program: Any, run_all: Any, dump: Any) -> None:
    """kill -9 of the writing process at several moments; the stages go on, nothing is doubled."""
    killed: list[int] = []
    watcher = tracker(program, lambda _text: None)[0]

    def before(context: Any) -> None:
        process = watcher._process
        if context.stage in ("reward_safety", "ppo") and process is not None:
            until = time.monotonic() + 60
            # Not before it has begun to write.
            while not (program.workspace / "mlartifacts").exists() and time.monotonic() < until:
                time.sleep(0.05)
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)

    stages.before = before
    run_all(program, [watcher])
    assert killed
    assert all_done(program)
    assert catch_up(program) == []
    mended = dump(Sync(program).store)
    assert mended["RLHF-V2"]["status"] == "FINISHED"
    assert all(run["status"] == "FINISHED" for key, run in mended.items() if key != "registry")
    rebuild(program)
    assert dump(Sync(program).store) == mended
