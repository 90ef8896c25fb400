"""The old database is set aside whole, and never beneath a server that has it open."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from alignment.errors import AlignError
from alignment.tracking.aside import set_file_aside
from alignment.tracking.rebuild import rebuild
from alignment.tracking.store import SERVED
from flows.servers.child_process import Child


def test_a_server_on_the_database_is_not_left_with_a_renamed_file(
    stages: Any, make_program: Any, run_all: Any
) -> None:
    program = make_program(versions=1)
    run_all(program)
    database = program.workspace / "mlflow.db"
    database.write_bytes(b"what the server has open")
    server = Child(
        "a server",
        [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"],
        {},
        program.workspace / "mlflow-server.log",
        holds=program.workspace / SERVED,
    )
    try:
        with pytest.raises(AlignError, match="pages are open") as caught:
            rebuild(program)
        assert "align down" in (caught.value.remedy or "")
        assert database.read_bytes() == b"what the server has open"
    finally:
        server.stop()
    done = rebuild(program)  # what is no database is set aside as it is
    assert done.problems == []
    assert done.kept is not None
    assert Path(done.kept).read_bytes() == b"what the server has open"


def test_the_write_ahead_log_goes_with_its_database(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    with closing(sqlite3.connect(database)) as reader, closing(sqlite3.connect(database)) as writer:
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE runs (name TEXT)")
        writer.execute("INSERT INTO runs VALUES ('RLHF-V1')")
        writer.commit()
        reader.execute("SELECT * FROM runs").fetchall()  # holds it open, so that the log stays
        assert (tmp_path / "mlflow.db-wal").stat().st_size > 0
        kept = set_file_aside(database)
        assert kept is not None
        assert not list(tmp_path.glob("mlflow.db*"))
        alone = tmp_path / "alone.db"
        alone.write_bytes(Path(kept).read_bytes())
    with closing(sqlite3.connect(alone)) as found:
        assert found.execute("SELECT name FROM runs").fetchall() == [("RLHF-V1",)]
