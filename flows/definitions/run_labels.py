"""Labels on a flow run: which process does it, and which version it works on.

A retried run must work on the same version as before, whatever `next` means by then.
"""

import os
import socket
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from alignment.utils.processes import born, runs

PROCESS = "align.process"
VERSION = "align.version"
REDONE = "align.redone"


def this_process() -> str:
    """Host, process id and start time of this process."""
    return f"{socket.gethostname()}:{os.getpid()}:{born():.0f}"


def process_lives(description: str) -> bool:
    """Whether the process that `this_process` described still runs; True for other hosts'."""
    host, pid, started = description.rsplit(":", 2)
    return host != socket.gethostname() or runs(int(pid), float(started))


def labels_of(run: Any) -> dict[str, Any]:
    """A flow run's labels."""
    return dict(getattr(run, "labels", None) or {})


def this_run() -> FlowRun | None:
    """The flow run that is being carried out; None outside of one."""
    context = FlowRunContext.get()
    return context.flow_run if context else None


def remember(**labels: str) -> None:
    """Keep labels on the flow run that is being carried out."""
    if run := this_run():
        values: dict[str, bool | int | float | str] = dict(labels)
        with get_client(sync_client=True) as client:
            client.update_flow_run_labels(run.id, values)


def remembered(label: str) -> str | None:
    """The value that an earlier execution of this flow run kept under `label`."""
    run = this_run()
    if run is None:
        return None
    with get_client(sync_client=True) as client:
        value = labels_of(client.read_flow_run(run.id)).get(label)
    return None if value is None else str(value)


def rename(name: str) -> None:
    """Give the flow run that is being carried out a name that says what it does."""
    run = this_run()
    if run is not None and run.name != name:
        with get_client(sync_client=True) as client:
            client.update_flow_run(run.id, name=name)


def deployed() -> bool:
    """Whether the flow run that is being carried out belongs to a deployment."""
    return bool((run := this_run()) and run.deployment_id)


def is_subflow() -> bool:
    """Whether it was started by another flow run."""
    return bool((run := this_run()) and run.parent_task_run_id)
