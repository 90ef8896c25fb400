"""The MLflow store of a program: which one, its client, its experiment."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError

NOTE = "mlflow.note.content"
SERVED = "mlflow-server.lock"
"""In the workspace: MLflow's server over its database holds this shared, as long as it lives."""
EXPERIMENT_NOTE = (
    "Iterative RLHF: SFT, then RLHF-V1 … RLHF-Vn. One run per version (`rlhf.kind = version`), "
    "under it one run per attempt at a stage; **RLHF progress** has every headline figure with the "
    "version's number as step. Written from the ledger of the workspace; "
    "`align mlflow rebuild` writes it anew."
)


def store_uri(program: ProgramConfig) -> str:
    """The tracking store: from the configuration, the environment, or the workspace."""
    uri = program.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")
    return uri or f"sqlite:///{local_database(program.workspace)}"


def local_database(workspace: Path) -> Path:
    """The SQLite file of a workspace's own store."""
    return workspace.resolve() / "mlflow.db"


def experiment_name(program: ProgramConfig) -> str:
    """The experiment of a program."""
    return program.tracking.experiment or program.name


def calm_environment() -> None:
    """Settings MLflow reads from the environment; must be set before its first import."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    # A dead server must be noticed in seconds, not after minutes of retries.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def pages(search: Callable[..., Any], *args: Any, **values: Any) -> Iterator[Any]:
    """Everything that one of the client's searches finds, page after page."""
    token = None
    while True:
        page = search(*args, page_token=token, **values)
        yield from page
        token = page.token
        if not token:
            return


class Store:
    """A client and an experiment.

    Attributes:
        client: an `mlflow.MlflowClient`.
        experiment: id of the program's experiment.
    """

    def __init__(self, program: ProgramConfig):
        """Connect, and create the experiment if it is not there.

        Raises:
            AlignError: the experiment was deleted in MLflow.
            Exception: whatever MLflow raises when the store cannot be reached or written.
        """
        calm_environment()
        from mlflow import MlflowClient

        for name in ("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self.uri = store_uri(program)
        if self.uri.startswith("sqlite:"):
            _quick_sqlite()
        self.client: Any = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        self._note = ""
        self.experiment = self._experiment(program)

    @contextmanager
    def as_default(self) -> Iterator[None]:
        """Make this the process's store for a moment.

        Registering a model looks its source up there, whatever client is used.
        """
        before = os.environ.get("MLFLOW_TRACKING_URI")
        os.environ["MLFLOW_TRACKING_URI"] = self.uri
        try:
            yield
        finally:
            if before is None:
                del os.environ["MLFLOW_TRACKING_URI"]
            else:
                os.environ["MLFLOW_TRACKING_URI"] = before

    def describe(self, lines: str) -> None:
        """Put these lines at the top of the experiment's page, above what it holds."""
        note = f"{lines}\n\n{EXPERIMENT_NOTE}" if lines else EXPERIMENT_NOTE
        if note != self._note:
            self.client.set_experiment_tag(self.experiment, NOTE, note)
            self._note = note

    def _experiment(self, program: ProgramConfig) -> str:
        name = experiment_name(program)
        existing = self.client.get_experiment_by_name(name)
        if existing is not None:
            if existing.lifecycle_stage == "deleted":
                raise AlignError(
                    f"the MLflow experiment {name!r} was deleted",
                    where=self.uri,
                    remedy="restore it, or choose another name: tracking.experiment",
                )
            self._note = existing.tags.get(NOTE, "")
            return str(existing.experiment_id)
        artifacts = None
        if self.uri.startswith("sqlite:") or "://" not in self.uri:
            artifacts = (program.workspace.resolve() / "mlartifacts").as_uri()
        return str(
            self.client.create_experiment(
                name,
                artifact_location=artifacts,
                tags={
                    NOTE: EXPERIMENT_NOTE,
                    # Opens the page with runs and charts rather than with traces of agents.
                    "mlflow.experimentKind": "custom_model_development",
                },
            )
        )


@cache
def _quick_sqlite() -> None:
    """Let SQLite write ahead and leave the flushing to the system.

    MLflow commits dozens of times for a run, at one flush of the disk each. A power cut can cost
    the last entries, never the file, and everything can be written anew from the ledger. Readers
    (the pages of `align ui`) are not locked out meanwhile.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def set_pragmas(connection: Any, _record: Any) -> None:
        if "sqlite" in type(connection).__module__:
            cursor = connection.cursor()
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = NORMAL")
            cursor.close()

    event.listen(Engine, "connect", set_pragmas)
