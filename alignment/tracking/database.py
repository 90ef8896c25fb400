"""A workspace's own MLflow database, made whole or not at all.

MLflow makes one by dozens of migrations of the file itself, and SQLite commits each step of them: a
process that is killed in between leaves a database that never opens again. So an empty one is made
elsewhere and put in place by one operation. `python -m alignment.tracking.database` makes a
template within the virtual environment, which also saves every new workspace the migrations.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from alignment.errors import AlignError


def template_path() -> Path:
    """Where the template of the installed MLflow lies."""
    return Path(sys.prefix) / "share" / "align" / f"mlflow-{version('mlflow')}.db"


def provide(database: Path) -> None:
    """Put an empty, migrated database at this path, unless there is one.

    Raises:
        AlignError: MLflow could not make one.
    """
    if database.exists():
        return
    with tempfile.TemporaryDirectory(prefix=".mlflow-", dir=database.parent) as folder:
        fresh = Path(folder) / database.name
        if template_path().exists():
            shutil.copyfile(template_path(), fresh)
        else:
            _make(fresh)
        try:
            os.link(fresh, database)  # unlike a rename it never replaces what is there
        except FileExistsError:
            return  # another process was faster
        except OSError:  # a file system without links
            fresh.replace(database)


def make_template() -> Path:
    """Make the template, unless it is there."""
    path = template_path()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            fresh = Path(folder) / path.name
            _make(fresh)
            fresh.replace(path)
    return path


def _make(path: Path) -> None:
    """Let MLflow make a database in a process of its own, which takes its connections along."""
    code = "from mlflow import MlflowClient; MlflowClient().search_experiments()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=path.parent,
        env={
            **os.environ,
            "MLFLOW_TRACKING_URI": f"sqlite:///{path}",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise AlignError(f"MLflow could not make a database: {last}", where=str(path))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        # It holds the address of this place. MLflow makes it anew where there is none.
        connection.execute("DELETE FROM experiments")


if __name__ == "__main__":
    make_template()
