"""Prefect's part of `align doctor`: runs of dead processes, notes of servers that are gone."""

import logging
from collections.abc import Iterator
from pathlib import Path

from alignment.operations.doctor import Finding
from flows.servers import prefect_environment
from flows.servers.prefect_environment import home
from flows.servers.prefect_server import NOTE, Server, find_server, start_server
from flows.serving import state_file

log = logging.getLogger("alignment.flows")


def examine(workspace: Path) -> Iterator[Finding]:
    """All findings. Starts a server for the purpose if none is running.

    Fix each finding before you ask for the next one: the server stops with the iterator.
    """
    workspace = workspace.resolve()
    yield from _notes(workspace)
    if not (home(workspace) / "prefect.db").is_file():
        return
    server = find_server(workspace, log.warning) or start_server(workspace)
    try:
        server.wait()
        yield from _runs(workspace, server)
    finally:
        server.stop()


def _notes(workspace: Path) -> Iterator[Finding]:
    record = state_file.record(workspace)
    if record is not None and not state_file.alive(record):
        yield Finding(
            "`align serve` of this workspace was killed",
            str(home(workspace) / state_file.RECORD),
            "what it left running is stopped; start it again with `align serve CONFIG`",
            lambda: state_file.down(workspace),
        )
    note = home(workspace) / NOTE
    if note.is_file() and find_server(workspace, log.warning) is None:
        yield Finding(
            "the note of a Prefect server that does not answer",
            str(note),
            "removed",
            lambda: note.unlink(missing_ok=True),
        )


def _runs(workspace: Path, server: Server) -> Iterator[Finding]:
    prefect_environment.enter(workspace, server.url)
    from flows.definitions.dead_runs import close_dead_runs, dead_runs

    for run in dead_runs(str(workspace)):
        yield Finding(
            f"Prefect: {run.name} is marked as {run.state_name}, but its process is gone",
            f"flow run {run.id}",
            "closed in Prefect",
            lambda: close_dead_runs(str(workspace)),
        )
