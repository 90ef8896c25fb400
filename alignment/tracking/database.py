"""A workspace's own MLflow database. `python -m alignment.tracking.database` makes its template."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from alignment.utils import database_template


def provide(database: Path) -> None:
    """Put an empty, migrated database at this path, unless there is one.

    Raises:
        AlignError: MLflow could not make one.
    """
    database_template.provide(database, "mlflow", make)


def make(path: Path) -> None:
    """Let MLflow make a database."""
    environment = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{path}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    code = "from mlflow import MlflowClient; MlflowClient().search_experiments()"
    database_template.run("MLflow", ["-c", code], environment, path.parent)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        # It holds the address of this place. MLflow makes it anew where there is none.
        connection.execute("DELETE FROM experiments")


if __name__ == "__main__":
    database_template.make_template("mlflow", make)
