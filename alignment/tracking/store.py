"""The MLflow store of a program: which one, its client, its experiment."""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from weakref import WeakKeyDictionary

from alignment.config.location import written_out
from alignment.config.program import ProgramConfig
from alignment.errors import AlignError, ConfigError, redact
from alignment.pipeline.workspace import is_workspace
from alignment.tracking.database import provide
from alignment.utils.mounts import network_mount

NOTE = "mlflow.note.content"
WORKSPACE = "rlhf.workspace"
"""Tag of an experiment: host and directory of the workspace that writes it."""
log = logging.getLogger("alignment.tracking")
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
    uri = program.tracking.uri
    if uri is None and (given := os.environ.get("MLFLOW_TRACKING_URI")):
        try:
            uri = written_out(given)
        except ValueError as error:
            raise ConfigError(str(error), where="the environment: MLFLOW_TRACKING_URI") from None
    return uri or f"sqlite:///{local_database(program.workspace)}"


def local_database(workspace: Path) -> Path:
    """The SQLite file of a workspace's own store."""
    return workspace.resolve() / "mlflow.db"


def has_own_database(program: ProgramConfig) -> bool:
    """Whether the store is the workspace's own SQLite file."""
    return store_uri(program) == f"sqlite:///{local_database(program.workspace)}"


def provide_database(program: ProgramConfig) -> None:
    """Make the workspace's own database, if the store is one that is not there yet."""
    if has_own_database(program):
        provide(local_database(program.workspace))


def artifacts_of(workspace: Path) -> Path:
    """Where a store without a server keeps artifacts."""
    return workspace.resolve() / "mlartifacts"


def moved_from(program: ProgramConfig) -> Path | None:
    """Where the workspace lay when its own database was made, if that was elsewhere.

    MLflow's addresses of artifacts are absolute: in a copied or moved workspace they lead to the
    old place, and everything new would be written there too.
    """
    database = local_database(program.workspace)
    if not has_own_database(program) or not database.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute(
                "SELECT artifact_location FROM experiments WHERE name = ?",
                [experiment_name(program)],
            ).fetchone()
    except sqlite3.DatabaseError:
        return None  # damaged, or not set up yet: MLflow says so itself
    return None if row is None else _elsewhere(program, row[0])


def _elsewhere(program: ProgramConfig, location: str) -> Path | None:
    """The workspace that artifacts at `location` belong to, if it is another one."""
    parts = urlsplit(location)
    directory = Path(unquote(parts.path))
    ours = artifacts_of(program.workspace)
    if parts.scheme not in ("", "file") or directory.name != ours.name:
        return None
    if directory.resolve() == ours:  # a link at the old place leads here
        return None
    return directory.parent


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
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


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
        taken_over: what was said when another workspace had written the experiment before.
    """

    def __init__(self, program: ProgramConfig):
        """Connect, and create the experiment if it is not there.

        Raises:
            AlignError: the experiment was deleted in MLflow, or belongs to the workspace that this
                one was copied from.
            Exception: whatever MLflow raises when the store cannot be reached or written.
        """
        calm_environment()
        from mlflow import MlflowClient

        for name in ("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self.uri = store_uri(program)
        provide_database(program)
        if self.uri.startswith("sqlite:"):
            _quick_sqlite()
        self.client: Any = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        self._note = ""
        self.taken_over: str | None = None
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

    def _is_server(self) -> bool:
        """Whether a server decides where artifacts lie."""
        return "://" in self.uri and not self.uri.startswith("sqlite:")

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
            other = None if self._is_server() else _elsewhere(program, existing.artifact_location)
            if other is not None:
                raise AlignError(
                    f"the MLflow experiment {name!r} writes its files into {other}: this workspace "
                    "was copied or moved",
                    where=self.uri,
                    remedy="align mlflow rebuild writes the history anew; a copy beside the "
                    "original in a shared store needs a name of its own: tracking.experiment",
                )
            self._note = existing.tags.get(NOTE, "")
            self._claim(existing, program)
            return str(existing.experiment_id)
        artifacts = None if self._is_server() else artifacts_of(program.workspace).as_uri()
        return str(
            self.client.create_experiment(
                name,
                artifact_location=artifacts,
                tags={
                    NOTE: EXPERIMENT_NOTE,
                    WORKSPACE: self._here(program),
                    # Opens the page with runs and charts rather than with traces of agents.
                    "mlflow.experimentKind": "custom_model_development",
                },
            )
        )

    def _here(self, program: ProgramConfig) -> str:
        return f"{socket.gethostname()}:{program.workspace.resolve()}"

    def _claim(self, experiment: Any, program: ProgramConfig) -> None:
        """Enter this workspace as the one that writes the experiment.

        Raises:
            AlignError: another one does, from which this one was copied.
        """
        here = self._here(program)
        host, _, path = experiment.tags.get(WORKSPACE, here).partition(":")
        # A shared disk has one path on every machine; a link at the old place leads here.
        if Path(path).resolve() != program.workspace.resolve():
            whose = f"the MLflow experiment {experiment.name!r}: the workspace {path} on {host}"
            remedy = "give one of them an experiment of its own: tracking.experiment"
            if host == socket.gethostname() and is_workspace(Path(path)):
                raise AlignError(
                    f"{whose} writes it, and this one is a copy of it or has its name",
                    where=redact(self.uri),
                    remedy=remedy,
                )
            self.taken_over = f"{whose} wrote it, now this one does; if both are used, {remedy}"
            log.warning("%s", self.taken_over)
        if experiment.tags.get(WORKSPACE) != here:
            self.client.set_experiment_tag(experiment.experiment_id, WORKSPACE, here)


def open_anew(database: Path) -> None:
    """Drop this process's connections to a SQLite file that was renamed, as MLflow keeps them open
    for good: it would go on writing to the old file."""
    for connection, file in list(_connections.items()):
        if file == database:
            connection.invalidate(soft=True)  # the next question connects again


_connections: WeakKeyDictionary[Any, Path] = WeakKeyDictionary()


@cache
def _quick_sqlite() -> None:
    """Let SQLite write ahead and leave the flushing to the system.

    MLflow commits dozens of times for a run, at one flush of the disk each. A power cut can cost
    the last entries, never the file, and everything can be written anew from the ledger. Readers
    (the pages of `align ui`) are not locked out meanwhile. On a network file system, where a
    write-ahead log does not work, SQLite stays as careful as it is.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def set_pragmas(connection: Any, record: Any) -> None:
        if "sqlite" in type(connection).__module__:
            cursor = connection.cursor()
            _, _, file = cursor.execute("PRAGMA database_list").fetchone()
            _connections[record] = Path(file)
            if network_mount(Path(file)) is None:
                cursor.execute("PRAGMA journal_mode = WAL")
                cursor.execute("PRAGMA synchronous = NORMAL")
            cursor.close()

    event.listen(Engine, "connect", set_pragmas)
