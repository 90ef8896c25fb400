"""`python -m flows.serving.worker WORKSPACE`: carries out what the deployments are asked for.

A child of `align serve`, which restarts it when it dies.
"""

import logging
import sys
from pathlib import Path
from uuid import UUID

from prefect import serve
from prefect.client.orchestration import get_client

from alignment.config.program import ProgramConfig
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.readiness import frontier
from flows.definitions.parameters import read_program
from flows.servers.child_process import end_with_parent
from flows.serving.deployments import deployments
from flows.serving.recovery import cancelled_last, deployment_ids, drop_missed
from flows.serving.watcher import Watcher

log = logging.getLogger("alignment.flows")

POLL_SECONDS = 2.0
AT_ONCE = 6  # one does a version, one takes files in, the others wait in line


def main(workspace: Path) -> None:
    """Register the deployments and serve them until SIGTERM."""
    end_with_parent(grace=10.0)
    logging.getLogger("alignment").setLevel(logging.INFO)  # Prefect has given the root a handler
    program = read_program(str(workspace))
    made = deployments(program)
    for deployment in made:
        deployment.apply()
    ids = deployment_ids([f"{deployment.flow_name}/{deployment.name}" for deployment in made])
    dropped = drop_missed(ids)
    if dropped:
        log.info("%d missed runs are left out: a later one does their work", dropped)
    go_on(program, ids[1:])
    watch = Watcher(program, ids[1:], lambda program: go_on(program, ids[1:]))
    watch.start()
    try:
        serve(*made, query_seconds=POLL_SECONDS, limit=AT_ONCE, print_starting_message=False)
    finally:
        watch.stop()


def go_on(program: ProgramConfig, versions: list[UUID]) -> None:
    """Have a version that was begun go on at once, the base and SFT that all need, and a version
    for which enough preferences wait; but not what somebody cancelled.

    Args:
        versions: ids of the deployments that work on versions, the iteration's first.
    """
    progress = frontier(program)
    if progress.version is None:
        return
    if cancelled_last(versions):
        log.info("%s was cancelled: it goes on when somebody asks", progress.version)
        return
    attempts = Ledger(program.workspace).root.glob(f"{progress.version}/*/attempts/*.json")
    enough = program.intake.source == "inbox" and progress.waiting is None
    if enough or progress.version in ("base", "sft") or any(attempts):
        with get_client(sync_client=True) as client:
            client.create_flow_run_from_deployment(versions[0])
        log.info("%s is not done: it goes on", progress.version)


if __name__ == "__main__":  # a flow's process imports this module again
    main(Path(sys.argv[1]))
