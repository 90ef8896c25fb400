"""`align approve` and flow runs that are suspended: whoever decided has them go on."""

import logging
from pathlib import Path

from alignment.errors import redact
from flows.servers import prefect_environment
from flows.servers.prefect_server import find_server

log = logging.getLogger("alignment.flows")


def wake(workspace: Path, version: str) -> int:
    """Resume the flow runs that wait for the decision on `version`; returns how many.

    Without a server there is nobody to resume them: they go on when somebody resumes them, or the
    next run finds the decision.
    """
    server = find_server(workspace, log.warning)
    if server is None:
        return 0
    prefect_environment.enter(workspace, server.url)
    from flows.definitions.approval import resume_decided

    try:
        return resume_decided(workspace, version)
    except Exception as error:  # whatever a server in trouble answers: the decision is written
        log.warning("the suspended run is not resumed yet (%s)", redact(str(error)))
        return 0
