"""Write the history anew from the ledger, or what is missing of it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError, redact
from alignment.pipeline.workspace import is_workspace, keep_program
from alignment.tracking.aside import set_file_aside, settle, unserved
from alignment.tracking.follow import tracking_lock
from alignment.tracking.store import (
    experiment_name,
    has_own_database,
    local_database,
    store_uri,
)
from alignment.utils.locks import holder

log = logging.getLogger("alignment.tracking")


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
        AlignError: another process is writing, MLflow's pages are open on the workspace's own
            database, or the store cannot be written.
    """
    from alignment.tracking.sync import Sync

    if not is_workspace(program.workspace):
        keep_program(program)
    alive = holder(program.workspace) is not None
    with tracking_lock(program.workspace, patience=5.0):
        try:
            with unserved(program):
                name_aside = _set_aside(program)
                sync = Sync(program)
        except AlignError:
            raise
        except Exception as error:
            raise out_of_reach(program, error) from None
        problems = sync.step(alive=alive)
        runs = len(sync.runs.stages) + len(sync.runs.versions) + (sync.runs.progress is not None)
    return Rebuilt(redact(store_uri(program)), name_aside, runs, problems)


def note_decision(program: ProgramConfig) -> None:
    """Bring a person's decision into MLflow at once, unless a run that holds the workspace does so.

    What MLflow does not take now it gets with the next run: a warning says so.
    """
    if not program.tracking.enabled or holder(program.workspace) is not None:
        return
    try:
        problems = catch_up(program, patience=60.0)
    except Exception as error:  # whatever MLflow raises when its store is out of reach
        problems = [redact(str(error)).strip().partition("\n")[0]]
    if problems:
        log.warning("MLflow has not heard of the decision (%s); the next run tells it", problems[0])


def catch_up(program: ProgramConfig, patience: float = 5.0) -> list[str]:
    """Write what is missing; returns what could not be written.

    Nothing is set aside but the history that a copied or moved workspace brought along (`settle`).

    Raises:
        AlignError: another process is writing, or the store cannot be reached.
    """
    from alignment.tracking.sync import Sync

    alive = holder(program.workspace) is not None
    with tracking_lock(program.workspace, patience=patience):
        try:
            settle(program)
            return Sync(program).step(alive=alive)
        except AlignError:
            raise
        except Exception as error:  # whatever MLflow raises when its store is out of reach
            raise out_of_reach(program, error) from None


def out_of_reach(program: ProgramConfig, error: Exception) -> AlignError:
    """One line about a store that cannot be reached or written, without a password."""
    lines = str(error).strip().splitlines()
    return AlignError(
        f"the MLflow store cannot be written: {type(error).__name__}: {''.join(lines[:1])[:300]}",
        where=store_uri(program),
        remedy="see that it is there and may be written; the ledger is whole",
    )


def _set_aside(program: ProgramConfig) -> str | None:
    if has_own_database(program):
        return set_file_aside(local_database(program.workspace))
    from alignment.tracking.store import calm_environment

    calm_environment()
    from mlflow import MlflowClient

    uri = store_uri(program)
    client: Any = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.get_experiment_by_name(experiment_name(program))
    if experiment is None:
        return None
    aside = f"{experiment_name(program)} (before {time.strftime('%Y-%m-%d %H:%M:%S')})"
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    client.rename_experiment(experiment.experiment_id, aside)
    client.delete_experiment(experiment.experiment_id)
    return aside
