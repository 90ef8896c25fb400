"""`python -m flows.served WORKSPACE`: carries out what the deployments of a program are asked for.

A child of `align serve`, which restarts it when it dies.
"""

import logging
import sys
from pathlib import Path

from prefect import serve

from flows.deployments import deployments
from flows.healing import deployment_ids, drop_missed
from flows.request import read_program
from flows.watch import Watch

POLL_SECONDS = 2.0
AT_ONCE = 6  # one does a version, one takes files in, the others wait in line


def main(workspace: Path) -> None:
    """Register the deployments and serve them until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    program = read_program(str(workspace))
    made = deployments(program)
    for deployment in made:
        deployment.apply()
    ids = deployment_ids([f"{deployment.flow_name}/{deployment.name}" for deployment in made])
    dropped = drop_missed(ids)
    if dropped:
        logging.info("%d missed runs are left out: a later one does their work", dropped)
    watch = Watch(program, ids[1:])
    watch.start()
    try:
        serve(*made, query_seconds=POLL_SECONDS, limit=AT_ONCE, print_starting_message=False)
    finally:
        watch.stop()


if __name__ == "__main__":  # a flow's process imports this module again
    main(Path(sys.argv[1]))
