"""Make an empty, migrated Prefect database once: `python -m flows.servers.database_template`.

A fresh database takes Prefect some ten seconds of migrations; a workspace that starts from the
template is ready in four. Without the template everything works the same, only later.
"""

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
from flows.servers.prefect_environment import QUIET

DATABASE = "prefect.db"


def template_path() -> Path:
    """Where the template of the installed Prefect lies, within the virtual environment."""
    return Path(sys.prefix) / "share" / "align" / f"prefect-{version('prefect')}.db"


def make_template() -> Path:
    """Make the template, unless it is there.

    Raises:
        AlignError: Prefect could not migrate an empty database.
    """
    path = template_path()
    if path.exists():
        return path
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
        done = subprocess.run(
            command,
            env={**os.environ, **QUIET, "PREFECT_HOME": folder, "PREFECT_API_URL": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        database = Path(folder) / DATABASE
        if done.returncode or not database.exists():
            raise AlignError(f"Prefect could not make a database: {done.stderr.strip()[-500:]}")
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        _copy(database, path)
    return path


def use_template(folder: Path) -> bool:
    """Give a workspace that has no Prefect database yet a copy; whether it did."""
    database = folder / DATABASE
    if database.exists() or not template_path().exists():
        return False
    _copy(template_path(), database)
    return True


def _copy(source: Path, target: Path) -> None:
    """Copy so that `target` is whole or not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(source, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


if __name__ == "__main__":
    print(f"Prefect database template: {make_template()}")
