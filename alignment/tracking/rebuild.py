"""Write the whole history anew from the ledger."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.files import atomic_write_json
from alignment.lock import holder
from alignment.redact import redact
from alignment.tracking.follow import tracking_lock
from alignment.tracking.store import experiment_name, local_database, store_uri


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild did.

    Attributes:
        uri: the store, without a password.
        kept: where the old history is now: a file, or the name of an experiment; None if none.
        runs: runs written.
        problems: what could not be written.
    """

    uri: str
    kept: str | None
    runs: int
    problems: list[str]


def rebuild(program: ProgramConfig) -> Rebuilt:
    """Set the old history aside and write it anew from the ledger.

    A workspace's own database is renamed; in a shared store the experiment is renamed and put into
    MLflow's bin, where it can be restored. Registered models stay: they are found by their digests.

    Raises:
        AlignError: another process is writing, or the store cannot be written.
    """
    from alignment.tracking.sync import Sync

    if not (program.workspace / "program.json").is_file():
        atomic_write_json(program.workspace / "program.json", program.model_dump(mode="json"))
    alive = holder(program.workspace) is not None
    with tracking_lock(program.workspace, patience=5.0):
        try:
            kept = _set_aside(program)
            sync = Sync(program)
        except AlignError:
            raise
        except Exception as error:
            raise AlignError(
                f"the MLflow store cannot be written: {type(error).__name__}: {error}",
                where=store_uri(program),
                remedy="see that it is there and may be written; the ledger is whole",
            ) from error
        problems = sync.step(alive=alive)
        runs = len(sync.runs.stages) + len(sync.runs.versions) + (sync.runs.progress is not None)
    return Rebuilt(redact(store_uri(program)), kept, runs, problems)


def catch_up(program: ProgramConfig) -> list[str]:
    """Write what is missing, without setting anything aside; returns what could not be written.

    Raises:
        AlignError: another process is writing.
    """
    from alignment.tracking.sync import Sync

    alive = holder(program.workspace) is not None
    with tracking_lock(program.workspace, patience=5.0):
        return Sync(program).step(alive=alive)


def _set_aside(program: ProgramConfig) -> str | None:
    database = local_database(program.workspace)
    if store_uri(program) == f"sqlite:///{database}":
        return _set_file_aside(database)
    from alignment.tracking.store import calm_environment

    calm_environment()
    from mlflow import MlflowClient

    uri = store_uri(program)
    client: Any = MlflowClient(tracking_uri=uri, registry_uri=uri)
    found = client.get_experiment_by_name(experiment_name(program))
    if found is None:
        return None
    aside = f"{experiment_name(program)} (before {time.strftime('%Y-%m-%d %H:%M:%S')})"
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    client.rename_experiment(found.experiment_id, aside)
    client.delete_experiment(found.experiment_id)
    return aside


def _set_file_aside(database: Path) -> str | None:
    if not database.exists():
        return None
    aside = database.with_name(f"mlflow-before-{time.strftime('%Y%m%d-%H%M%S')}.db")
    database.rename(aside)
    for suffix in ("-wal", "-shm", "-journal"):
        side = database.with_name(database.name + suffix)
        if side.exists():
            side.rename(aside.with_name(aside.name + suffix))
    return str(aside)
