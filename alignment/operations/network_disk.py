"""What a workspace on a network file system risks, in words."""

from __future__ import annotations

import os

from alignment.config.program import ProgramConfig
from alignment.tracking.store import has_own_database
from alignment.utils.mounts import network_mount

PREFECT_DATABASE = (
    "PREFECT_SERVER_DATABASE_CONNECTION_URL",
    "PREFECT_API_DATABASE_CONNECTION_URL",
)
"""Environment variables by which users give Prefect a database; the first one set counts."""


def network_notices(program: ProgramConfig) -> list[tuple[str, str]]:
    """What is at risk where the workspace lies on a network file system, each with its remedy.

    Our own records and caches are files that appear by one rename, which is safe there. SQLite is
    not: its write-ahead log is shared memory of one machine, and its locks fail on many mounts
    (https://www.sqlite.org/wal.html, https://www.sqlite.org/lockingv3.html, "How to corrupt").
    """
    mount = network_mount(program.workspace)
    if mount is None:
        return []
    where = f"the workspace lies on a network file system ({mount.kind})"
    notices = []
    if not mount.shares_locks:
        notices.append(
            (
                f"{where} that is mounted with locks of this machine only: another machine would "
                "work on the workspace at the same time",
                "mount it without nolock and local_lock",
            )
        )
    if program.tracking.enabled and has_own_database(program):
        notices.append(
            (
                f"{where}: its MLflow database is an SQLite file, which is damaged where two "
                "machines write to it",
                "keep to one machine, or give MLflow a server: MLFLOW_TRACKING_URI=http://…; "
                "`align mlflow rebuild` writes the history anew",
            )
        )
    if not any(os.environ.get(name) for name in ("PREFECT_API_URL", *PREFECT_DATABASE)):
        notices.append(
            (
                f"{where}: Prefect's database in it is an SQLite file with a write-ahead log, "
                "which does not work between machines",
                f"keep to one machine, or use Postgres: {PREFECT_DATABASE[0]}",
            )
        )
    return notices
