"""A workspace's MLflow database is there whole or not at all."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from alignment.errors import AlignError
from alignment.tracking import database
from alignment.utils import database_template


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "share" / "mlflow.db"
    monkeypatch.setattr(database_template, "template_path", lambda _library: path)
    return path


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_mlflow_opens_it_and_keeps_artifacts_where_it_is_told(
    tmp_path: Path, template: Path
) -> None:
    from mlflow import MlflowClient

    for _ in range(2):
        assert database_template.make_template("mlflow", database.make) == template
    work = tmp_path / "work"
    work.mkdir()
    database.provide(work / "mlflow.db")
    assert names(work) == ["mlflow.db"]
    client = MlflowClient(f"sqlite:///{work / 'mlflow.db'}")
    assert client.search_experiments() != []
    assert str(template.parent) not in str(client.search_experiments())
    before = (work / "mlflow.db").read_bytes()
    database.provide(work / "mlflow.db")
    assert (work / "mlflow.db").read_bytes() == before


def test_a_maker_that_dies_leaves_nothing_and_one_that_is_late_replaces_nothing(
    tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    path = work / "mlflow.db"

    def dies(fresh: Path) -> None:
        fresh.write_bytes(b"half")
        raise AlignError("killed")

    monkeypatch.setattr(database, "make", dies)
    with pytest.raises(AlignError):
        database.provide(path)
    assert names(work) == []

    def late(fresh: Path) -> None:
        path.write_bytes(b"another's")
        fresh.write_bytes(b"ours")

    monkeypatch.setattr(database, "make", late)
    database.provide(path)
    assert path.read_bytes() == b"another's"
    assert names(work) == ["mlflow.db"]


def test_without_a_template_one_is_made_on_the_spot(tmp_path: Path, template: Path) -> None:
    database.provide(tmp_path / "mlflow.db")
    assert not template.exists()
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    assert "alembic_version" in tables
    assert not [name for name in tables if name.startswith("_alembic_tmp")]
