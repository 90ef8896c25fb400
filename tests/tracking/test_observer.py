"""A store that does not work costs no stage, is not silent, and is made up for."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from alignment.execution.runner import Runner
from alignment.tracking.observer import tracker
from alignment.tracking.sync import Sync


def test_follows_a_program(stages: Any, program: Any, run_all: Any, dump: Any) -> None:
    said: list[str] = []
    run_all(program, tracker(program, said.append))
    assert said == []
    sync = Sync(program)
    before = dump(sync.store)
    assert before["RLHF-V2"]["status"] == "FINISHED"
    assert sync.step(alive=False) == []
    assert dump(sync.store) == before
    assert (program.workspace / "tracking.log").read_text() == ""


def test_locked_database(stages: Any, program: Any, run_all: Any, dump: Any) -> None:
    said: list[str] = []
    with contextlib.closing(sqlite3.connect(program.workspace / "mlflow.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN EXCLUSIVE")
        run_all(program, tracker(program, said.append))
    with Runner(program) as runner:
        assert len(stages.ran) == len(runner.plan)
    assert said
    assert "locked" in said[-1]
    assert "no stage is lost" in said[-1]
    later: list[str] = []
    run_all(program, tracker(program, later.append))
    assert later == []
    assert len(stages.ran) == len(set(stages.ran))
    assert dump(Sync(program).store)["RLHF-V2"]["status"] == "FINISHED"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:////proc/none/mlflow.db"])
def test_store_out_of_reach(uri: str, stages: Any, make_program: Any, run_all: Any) -> None:
    program = make_program(tracking={"uri": uri})
    said: list[str] = []
    run_all(program, tracker(program, said.append))
    assert "no stage is lost" in said[-1]
    assert len(said) <= 2


def test_environment_chooses_the_store(
    stages: Any,
    make_program: Any,
    run_all: Any,
    empty_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copyfile(empty_store, tmp_path / "elsewhere.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/elsewhere.db")
    program = make_program()
    run_all(program, tracker(program))
    assert not (program.workspace / "mlflow.db").exists()
    assert Sync(program).runs.versions["RLHF-V2".lower()].info.status == "FINISHED"


def test_switched_off(make_program: Any) -> None:
    assert tracker(make_program(tracking={"enabled": False})) == []
