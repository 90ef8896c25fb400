"""A workspace's own Prefect database. `python -m flows.servers.database` makes its template."""

import contextlib
import os
import sqlite3
from pathlib import Path

from alignment.operations.network_disk import PREFECT_DATABASE
from alignment.utils import database_template
from flows.servers.prefect_environment import QUIET

DATABASE = "prefect.db"


def provide(folder: Path) -> None:
    """Put an empty, migrated database into Prefect's folder of a workspace, unless there is one, or
    the user has one elsewhere.

    Raises:
        AlignError: Prefect could not make one.
    """
    if any(os.environ.get(name) for name in PREFECT_DATABASE):
        return
    folder.mkdir(parents=True, exist_ok=True)
    database_template.provide(folder / DATABASE, "prefect", make)


def make(path: Path) -> None:
    """Let Prefect make a database."""
    environment = {
        **QUIET,
        "PREFECT_HOME": str(path.parent),
        "PREFECT_API_URL": "",
        **dict.fromkeys(PREFECT_DATABASE, f"sqlite+aiosqlite:///{path}"),
    }
    command = ["-m", "prefect", "server", "database", "upgrade", "-y"]
    database_template.run("Prefect", command, environment, path.parent)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


if __name__ == "__main__":
    database_template.make_template("prefect", make)
