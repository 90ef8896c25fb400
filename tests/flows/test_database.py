"""Prefect's database of a workspace is there whole or not at all, with a template or without."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from alignment.errors import AlignError
from alignment.operations.network_disk import PREFECT_DATABASE
from alignment.utils import database_template
from flows.servers import database


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "share" / "template.db"
    monkeypatch.setattr(database_template, "template_path", lambda _library: path)
    for name in PREFECT_DATABASE:
        monkeypatch.delenv(name, raising=False)
    return path


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


def test_without_a_template_one_is_made_on_the_spot(tmp_path: Path, template: Path) -> None:
    database.provide(tmp_path / "prefect")
    assert [path.name for path in (tmp_path / "prefect").iterdir()] == [database.DATABASE]
    assert {"alembic_version", "flow_run"} <= tables(tmp_path / "prefect" / database.DATABASE)
    assert not template.exists()


@pytest.mark.parametrize("name", PREFECT_DATABASE)
def test_where_the_user_has_another_it_is_neither_made_nor_touched(
    name: str, tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A template is made all the same, for other workspaces: in a file, not in the user's."""
    monkeypatch.setenv(name, "postgresql+asyncpg://localhost:1/prefect")
    database.provide(tmp_path / "prefect")
    assert not (tmp_path / "prefect").exists()
    given: list[Mapping[str, str]] = []
    monkeypatch.setattr(database_template, "run", lambda *call: given.append(call[2]))
    database.make(tmp_path / "fresh.db")
    (environment,) = given
    assert {environment[one] for one in PREFECT_DATABASE} == {
        f"sqlite+aiosqlite:///{tmp_path / 'fresh.db'}"
    }


def test_a_maker_that_dies_leaves_nothing(
    tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(fresh: Path) -> None:
        fresh.write_bytes(b"half")
        raise AlignError("killed")

    monkeypatch.setattr(database, "make", dies)
    with pytest.raises(AlignError):
        database.provide(tmp_path / "prefect")
    assert list((tmp_path / "prefect").iterdir()) == []
