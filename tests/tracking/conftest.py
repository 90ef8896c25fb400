"""Fixtures of the tracking tests."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import fake_program as fake
import pytest
from mlflow_dump import dump as dump_of


@pytest.fixture
def run_all() -> Any:
    """Every stage of a program, in plain Python."""
    return fake.run_all


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty MLflow database: making one takes seconds."""
    from alignment.tracking.store import Store

    program = fake.fake_program(tmp_path_factory.mktemp("template"), name="template")
    Store(program)
    path = program.workspace / "mlflow.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@pytest.fixture
def program(make_program: Any, empty_store: Path) -> Any:
    """A program of two versions whose workspace has an empty MLflow database."""
    made = make_program()
    made.workspace.mkdir()
    shutil.copyfile(empty_store, made.workspace / "mlflow.db")
    return made


@pytest.fixture
def dump() -> Any:
    """Everything in a store, comparable."""
    return dump_of
