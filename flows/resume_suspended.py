"""`align approve` resumes the flow runs that are suspended for its decision."""

import logging
from pathlib import Path

from alignment.errors import redact
from flows.servers import prefect_environment
from flows.servers.prefect_server import find_server

log = logging.getLogger("alignment.flows")


def wake(workspace: Path, version: str) -> int:
    """Resume the flow runs that wait for the decision on `version`; returns how many.

    Without a server nothing is resumed; the next run finds the decision.
    """
    server = find_server(workspace, log.warning)
    if server is None:
        return 0
    prefect_environment.enter(workspace, server.url)
    from flows.definitions.approval import resume_decided

    try:
        return resume_decided(workspace, version)
    except Exception as error:  # the decision is recorded, whatever the server answers
        log.warning("the suspended run is not resumed yet (%s)", redact(str(error)))
        return 0
