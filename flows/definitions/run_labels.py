"""Labels on a flow run: which process does it, and which version it works on.

A retried run must work on the same version as before, whatever `next` means by then.
"""

import os
import socket
from typing import Any

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


def remember(**labels: str) -> None:
    """Keep labels on the flow run that is being carried out."""
    from prefect.client.orchestration import get_client
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    values: dict[str, bool | int | float | str] = dict(labels)
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(context.flow_run.id, values)


def remembered(label: str) -> str | None:
    """The value that an earlier execution of this flow run kept under `label`."""
    from prefect.client.orchestration import get_client
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return None
    with get_client(sync_client=True) as client:
        value = labels_of(client.read_flow_run(context.flow_run.id)).get(label)
    return None if value is None else str(value)


def rename(name: str) -> None:
    """Give the flow run that is being carried out a name that says what it does."""
    from prefect.client.orchestration import get_client
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.name == name:
        return
    with get_client(sync_client=True) as client:
        client.update_flow_run(context.flow_run.id, name=name)


def deployed() -> bool:
    """Whether the flow run that is being carried out belongs to a deployment."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return bool(context and context.flow_run and context.flow_run.deployment_id)


def is_subflow() -> bool:
    """Whether it was started by another flow run."""
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return bool(context and context.flow_run and context.flow_run.parent_task_run_id)
