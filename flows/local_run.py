"""The whole series as a flow: base → SFT → RLHF-V1 … RLHF-Vn. What `align run` calls."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from alignment.execution.runner import Runner
from alignment.pipeline.node import Node
from flows.servers import prefect_environment
from flows.servers.prefect_server import Server, find_server, start_server

if TYPE_CHECKING:
    from flows.definitions.session import Session

log = logging.getLogger("alignment.flows")


def run(runner: Runner, nodes: Sequence[Node], *, say: Callable[[str], None] = log.warning) -> None:
    """Do `nodes` through Prefect, on a server that is up or on one of our own.

    A server of our own takes seconds to come up: meanwhile the first stage that is not done runs
    already, and is shown in Prefect as done.

    Args:
        runner: a runner that has been entered (it holds the workspace).
        say: where warnings go, one line each.

    Raises:
        AlignError: what a stage reported, unchanged; or the server did not come up.
    """
    workspace = runner.workspace
    server = find_server(workspace, say)
    if server is None:
        server = start_server(workspace)
    try:
        prefect_environment.enter(workspace, server.url)
        if not server.ready():
            run_ahead(runner, nodes)
        server.wait()
        conduct(runner, nodes)
    finally:
        server.stop()


def run_ahead(runner: Runner, nodes: Sequence[Node]) -> None:
    """Do the first stage that is not done."""
    for node in nodes:
        if not runner.run_node(node).cached:
            return


def conduct(runner: Runner, nodes: Sequence[Node]) -> None:
    """Run the program's flow against the server that this process is pointed at.

    Raises:
        AlignError: what a stage reported, unchanged.
    """
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.definitions.dead_runs import close_dead_runs, flush
    from flows.definitions.program import program
    from flows.definitions.session import session

    for name in ("prefect.flow_runs", "prefect.task_runs"):
        # What Prefect tells of a run is in its pages; a failure's traceback is in the stage's log.
        logging.getLogger(name).propagate = False

    # Joining the heartbeat's thread costs a second per flow; the ledger knows who is alive.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        close_dead_runs(str(runner.workspace.resolve()))
        with session(runner, nodes) as made:
            try:
                tagged(program, made)(workspace=str(runner.workspace.resolve()))
            finally:
                flush()


def tagged(flow: Any, made: "Session") -> Any:
    """The flow, its run named after the program and the versions it covers."""
    versions = made.versions()
    covered = f"{versions[0]}–{versions[-1]}" if versions else "nothing"
    stamp = time.strftime("%Y-%m-%d %H:%M")
    return flow.with_options(flow_run_name=f"{made.runner.program.name} {covered} {stamp}")


__all__ = ["Server", "conduct", "run", "run_ahead"]
