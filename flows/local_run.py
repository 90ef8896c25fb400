"""What `align run` calls: the program's flow, on a Prefect server that is up or of our own."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from alignment.execution.runner import Runner
from alignment.pipeline.node import Node
from flows.servers import prefect_environment
from flows.servers.prefect_server import find_server, start_server

if TYPE_CHECKING:
    from flows.definitions.session import Session

log = logging.getLogger("alignment.flows")


def run(runner: Runner, nodes: Sequence[Node], *, say: Callable[[str], None] = log.warning) -> None:
    """Run `nodes` through Prefect, on a server that is up or on one of our own.

    Our own server takes seconds to start. Meanwhile the first unfinished stage runs without it;
    Prefect then shows that stage as cached.

    The runner has been entered: it holds the workspace.

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
            for node in nodes:
                if not runner.run_node(node).cached:
                    break
        server.wait()
        conduct(runner, nodes)
    finally:
        server.stop()


def conduct(runner: Runner, nodes: Sequence[Node]) -> None:
    """Run the program's flow against the server that this process is pointed at."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.definitions.carried_out import carried_out
    from flows.definitions.dead_runs import close_dead_runs, flush
    from flows.definitions.program import program
    from flows.definitions.session import session

    for name in ("prefect.flow_runs", "prefect.task_runs"):
        # Prefect's pages show its messages, and the stage's log has the traceback of a failure.
        logging.getLogger(name).propagate = False

    # The heartbeat costs a second per flow, and the ledger knows which process is alive.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        close_dead_runs(str(runner.workspace.resolve()))
        with session(runner, nodes) as opened_session:
            try:
                run_of = tagged(program, opened_session)
                carried_out(run_of, workspace=str(runner.workspace.resolve()))
            finally:
                flush()


def tagged(flow: Any, session: "Session") -> Any:
    """The flow, its run named after the program and the versions it covers."""
    versions = session.versions()
    covered = f"{versions[0]}–{versions[-1]}" if versions else "nothing"
    stamp = time.strftime("%Y-%m-%d %H:%M")
    return flow.with_options(flow_run_name=f"{session.runner.program.name} {covered} {stamp}")
