"""Puts the SQLite file of a workspace's own history aside, so that a new one can be written."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.tracking.store import SERVED, has_own_database, local_database, moved_from, open_anew
from alignment.utils.locks import file_lock

log = logging.getLogger("alignment.tracking")


def settle(program: ProgramConfig) -> str | None:
    """Set the history aside that a copied or moved workspace brought along: its pictures and tables
    lie where it came from. It is written anew at the next occasion.

    Returns:
        What was done, in words; None if there was nothing to do.

    Raises:
        AlignError: MLflow's pages are open on the workspace's own database.
    """
    before = moved_from(program)
    if before is None:
        return None
    with unserved(program):
        aside = set_file_aside(local_database(program.workspace))
    done = (
        f"this workspace was copied or moved from {before}: its MLflow history is written anew, "
        f"the old one is kept as {aside}"
    )
    log.warning("%s", done)
    return done


@contextmanager
def unserved(program: ProgramConfig) -> Iterator[None]:
    """Keep servers of ours away from the workspace's own database, which they hold open: renamed
    beneath them, they would go on writing to, and showing, the old one.

    Raises:
        AlignError: one runs on it.
    """
    if not has_own_database(program):
        yield
        return
    busy = AlignError(
        "MLflow's pages are open on this database, by `align serve` or `align ui`",
        where=str(local_database(program.workspace)),
        remedy=f"stop them (Ctrl-C, or align down -w {program.workspace}), then rebuild; "
        "`align mlflow update` writes what is missing while they run",
    )
    with file_lock(program.workspace / SERVED, busy=lambda: busy):
        yield


def set_file_aside(database: Path) -> str | None:
    """Rename a database; returns its new path, or None if there is none."""
    if not database.exists():
        return None
    _gather(database)
    aside = database.with_name(f"mlflow-before-{time.strftime('%Y%m%d-%H%M%S')}.db")
    # The database last: killed in between, what is left is a whole one, and no stray log of it
    # lies beside the next.
    for suffix in ("-wal", "-shm", "-journal"):
        side = database.with_name(database.name + suffix)
        if side.exists():
            side.rename(aside.with_name(aside.name + suffix))
    database.rename(aside)
    open_anew(database)
    return str(aside)


def _gather(database: Path) -> None:
    """Bring what stands in the write-ahead log into the database, if it can be read."""
    try:
        with closing(sqlite3.connect(database, timeout=10.0)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.DatabaseError:
        return  # damaged: it is kept as it is
