"""`align serve`: Prefect's server, MLflow's server and the deployments, kept alive until Ctrl-C.

    align serve ─┬─ prefect server
                 ├─ mlflow server
                 └─ flows.serving.worker ── one process per flow run

Children end with their parent, however it ends, and are started again when they die.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from alignment.config.program import ProgramConfig
from alignment.errors import LockedError, redact
from alignment.pipeline.preflight import preflight
from alignment.pipeline.workspace import is_kept, keep_program
from alignment.preferences.inbox import inbox_dir
from alignment.utils.http import answers
from alignment.utils.locks import file_lock, workspace_lock
from flows.servers import web_pages
from flows.servers.child_process import port_taken
from flows.servers.prefect_environment import home
from flows.serving.state_file import forget, record, write_record
from flows.serving.supervisor import (
    Supervised,
    keep_deployments,
    keep_mlflow,
    keep_prefect,
    longest_stop,
    pids,
    stop_all,
)

PORT_PATIENCE = 15.0  # seconds for a predecessor that was killed to leave its ports


def serve(
    program: ProgramConfig,
    *,
    mlflow_port: int = 5000,
    prefect_port: int = 4200,
    say: Callable[[str], None] = print,
) -> None:
    """Start everything, print addresses and a legend, wait for Ctrl-C, stop everything.

    Raises:
        LockedError: the workspace is served already.
        AlignError: a child does not come up, or dies again and again.
    """
    workspace = program.workspace.resolve()
    preflight(program)
    stop = threading.Event()
    with ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, web_pages.setter(stop)))
        stack.enter_context(_served_once(workspace))
        _keep_program(program)
        inbox_dir(workspace, program.intake).mkdir(parents=True, exist_ok=True)
        say(f"starting the servers of {program.name} …")
        _wait_for_ports(workspace, (mlflow_port, prefect_port))
        services: list[Supervised] = []
        grace = program.orchestration.grace_seconds
        stack.callback(forget, workspace)
        stack.callback(stop_all, services, grace)
        mlflow = keep_mlflow(program, mlflow_port, services, say)
        prefect = keep_prefect(workspace, prefect_port, services, say)
        children = [service.child for service in services]
        web_pages.wait_for(lambda: answers(f"{prefect}/health"), children, stop)
        web_pages.wait_for(lambda: answers(f"{mlflow}/health"), children, stop)
        if stop.is_set():
            return
        keep_deployments(workspace, prefect, services)
        write_record(workspace, mlflow, prefect, pids(services), longest_stop(grace))
        page = prefect.removesuffix("/api")
        say(web_pages.legend(mlflow, page, web_pages.links(program, say)))
        say(legend(program, redact(page)))
        while not stop.wait(0.5):
            for service in services:
                before = service.child
                service.restart_if_dead(say)
                if service.child is not before:
                    write_record(workspace, mlflow, prefect, pids(services), longest_stop(grace))
        say("\nstopping …")


def legend(program: ProgramConfig, page: str) -> str:
    """What the deployments do, and how to ask for more."""
    workspace = program.workspace.resolve()
    settings = program.orchestration
    inbox = inbox_dir(workspace, program.intake)
    takes = program.intake.source == "inbox"
    when = settings.iteration_cron or "never by the clock"
    rows = [
        f"  deployments of {program.name}: {page}/deployments",
        f"    rlhf-intake     {settings.intake_cron or 'never by the clock'}, and when a file is "
        f"complete in {inbox}"
        if takes
        else "    rlhf-intake     has nothing to do: this program makes its own preferences",
        f"    rlhf-iteration  {when}"
        + (f", and when {settings.min_comparisons} new comparisons wait" if takes else ""),
        "    rlhf-program    when asked",
        f"  ask for more: Deployments › … › Run, or: align resume -w {workspace} --wait",
        f"  decide:       in the page of a suspended run, or: align approve VERSION -w {workspace}",
        f"  stop:         Ctrl-C here, or: align down -w {workspace}",
    ]
    return "\n".join(rows)


@contextmanager
def _served_once(workspace: Path) -> Iterator[None]:
    home(workspace).mkdir(parents=True, exist_ok=True)
    busy = LockedError(
        "this workspace is served already",
        where=str(workspace),
        remedy=f"stop that one first: align down -w {workspace}",
    )
    with file_lock(home(workspace) / "serve.lock", busy=lambda: busy):
        yield


def _keep_program(program: ProgramConfig) -> None:
    """The deployments read the program from its workspace.

    Raises:
        LockedError: another process works there with other settings.
    """
    if is_kept(program):
        return
    with workspace_lock(program.workspace):
        keep_program(program)


def _wait_for_ports(workspace: Path, ports: tuple[int, ...]) -> None:
    """After a `kill -9` the children of the last one may take a moment to leave their ports."""
    if record(workspace) is None:
        return
    until = time.monotonic() + PORT_PATIENCE
    while any(port_taken(port) for port in ports) and time.monotonic() < until:
        time.sleep(0.2)
