"""Prefect and MLflow on Postgres (docs/scale.md), with a server of Debian's package."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alignment.utils.http import answers
from flows.servers.child_process import Child, free_port

HERE = Path(__file__).parent
START_LIMIT = 240.0  # a fresh database has all migrations before it


def programs() -> Path | None:
    """Where initdb, pg_ctl and createdb are; Debian keeps them off the path."""
    folders = [*Path("/usr/lib/postgresql").glob("*/bin")]
    folders += [Path(found).parent for found in [shutil.which("initdb")] if found]
    whole = [folder for folder in folders if (folder / "createdb").exists()]
    return whole[0] if whole else None


def missing() -> str | None:
    """Why the test cannot run here, if so."""
    if programs() is None:
        return "Postgres is not installed (Debian: postgresql)"
    if importlib.util.find_spec("psycopg2") is None:
        return "psycopg2 is not installed, which MLflow needs for Postgres"
    if os.geteuid() == 0 and server_user() is None:
        return "Postgres does not run as root, and there is no user `postgres`"
    return None


def server_user() -> str | None:
    """Whom Postgres runs as: ourselves, or its own user if we are root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        return None


@pytest.fixture
def postgres() -> Iterator[int]:
    """The port of a fresh server on loopback with the databases `prefect` and `mlflow`."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    found, user = programs(), server_user()
    assert found is not None
    # Not in pytest's own folder: its user must reach it, and a socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="align-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, user)
    port = free_port()

    def call(program: str, *words: str) -> None:
        subprocess.run(
            [found / program, *words],
            user=user if os.geteuid() == 0 else None,
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    data = str(folder / "data")
    call("initdb", "-D", data, "-U", "align", "-A", "trust", "--no-sync")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    call("pg_ctl", "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "start")
    try:
        for name in ("prefect", "mlflow"):
            call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "align", name)
        yield port
    finally:
        call("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)


@pytest.fixture
def servers(postgres: int, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Prefect's and MLflow's server on it; the environment that points at them."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT", "MLFLOW"))}
    prefect, mlflow = free_port(), free_port()
    database = f"127.0.0.1:{postgres}"
    children = [
        Child(
            "the Prefect server",
            [sys.executable, "-m", "prefect", "server", "start", "--port", str(prefect)],
            {
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": (
                    f"postgresql+asyncpg://align@{database}/prefect"
                ),
                "PREFECT_API_URL": "",
                "PREFECT_HOME": str(tmp_path / "prefect"),
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "DO_NOT_TRACK": "1",
            },
            tmp_path / "prefect.log",
        ),
        Child(
            "the MLflow server",
            [
                *(sys.executable, "-m", "mlflow", "server", "--port", str(mlflow)),
                *("--backend-store-uri", f"postgresql://align@{database}/mlflow"),
                *("--artifacts-destination", str(tmp_path / "artifacts"), "--workers", "1"),
            ],
            {
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # consumers of a queue nobody uses
            },
            tmp_path / "mlflow.log",
        ),
    ]
    api, store = f"http://127.0.0.1:{prefect}/api", f"http://127.0.0.1:{mlflow}"
    try:
        children[0].wait_until(lambda: answers(f"{api}/health"), START_LIMIT)
        children[1].wait_until(lambda: answers(f"{store}/health"), START_LIMIT)
        yield clean | {"PREFECT_API_URL": api, "MLFLOW_TRACKING_URI": store}
    finally:
        for child in children:
            child.stop()


def count(port: int, database: str, question: str) -> int:
    """The answer to a question that has one number for an answer."""
    import psycopg2

    connection = psycopg2.connect(host="127.0.0.1", port=port, user="align", dbname=database)
    try:
        with connection.cursor() as cursor:
            cursor.execute(question)
            return int(cursor.fetchone()[0])
    finally:
        connection.close()


@pytest.mark.timeout(900)
def test_a_program_is_conducted_and_remembered_by_postgres(
    servers: dict[str, str], postgres: int, program: Any
) -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "killed_run.py"), str(program.workspace), "-"],
        env=servers,
        text=True,
        capture_output=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout.lower(), done.stdout
    flows = "SELECT count(*) FROM flow_run WHERE state_type = 'COMPLETED'"
    assert count(postgres, "prefect", flows) == 4  # the program; base, sft and rlhf-v1
    versions = "SELECT count(*) FROM tags WHERE key = 'rlhf.kind' AND value = 'version'"
    assert count(postgres, "mlflow", versions) == 2  # sft and rlhf-v1
    assert count(postgres, "mlflow", "SELECT count(*) FROM runs WHERE status <> 'FINISHED'") == 0
    # Nothing of it lies in the workspace.
    assert not (program.workspace / "mlflow.db").exists()
