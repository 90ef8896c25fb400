"""Fixtures of the tracking tests."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

_spec = importlib.util.spec_from_file_location(
    "fake_program", Path(__file__).with_name("fake_program.py")
)
assert _spec is not None
assert _spec.loader is not None
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The runner uses invented stages that take no time."""
    made = fake.FakeStages()
    monkeypatch.setattr("alignment.runner.importlib", made)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return made


@pytest.fixture
def make_program(tmp_path: Path) -> Any:
    """`make_program(versions=2, **settings)` in a fresh workspace."""
    return lambda **values: fake.fake_program(tmp_path / "workspace", **values)


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
    spec = importlib.util.spec_from_file_location("dump", Path(__file__).with_name("dump.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.dump
