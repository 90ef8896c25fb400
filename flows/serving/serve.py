"""`align serve`: Prefect's server, MLflow's server and the deployments, kept alive until Ctrl-C.

    align serve ─┬─ prefect server
                 ├─ mlflow server
                 └─ flows.serving.worker ── one process per flow run

Children end with their parent, however it ends, and are started again when they die.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from alignment.config.program import ProgramConfig
from alignment.errors import LockedError, redact
from alignment.operations.network_disk import network_notices
from alignment.pipeline.preflight import preflight
from alignment.pipeline.workspace import is_kept, keep_program
from alignment.preferences.inbox import inbox_dir
from alignment.utils.http import answers
from alignment.utils.locks import file_lock, workspace_lock
from flows.servers import web_pages
from flows.servers.child_process import port_taken
from flows.servers.prefect_environment import home
from flows.servers.prefect_server import drop_note
from flows.serving.notices import Notices
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

NOTICE_EVERY = 3.0  # seconds
PORT_PATIENCE = 15.0  # seconds for a predecessor that was killed to leave its ports


def serve(
    program: ProgramConfig,
    *,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    mlflow_port: int = 5000,
    prefect_port: int = 4200,
    say: Callable[[str], None] = print,
) -> None:
    """Start everything, print addresses and a legend, wait for Ctrl-C, stop everything.

    Args:
        config: the file that the program was read from, which is watched for edits.
        overrides: what `--set` changed of it.

    Raises:
        LockedError: the workspace is served already.
        AlignError: a child does not come up, or dies again and again.
    """
    workspace = program.workspace.resolve()
    preflight(program)
    with _until_ctrl_c() as (stack, stop):
        stack.enter_context(_served_once(workspace))
        stack.callback(forget, workspace)
        _keep_program(program)
        inbox_dir(workspace, program.intake).mkdir(parents=True, exist_ok=True)
        _wait_for_ports(workspace, (mlflow_port, prefect_port))
        services, mlflow, prefect = _servers(program, mlflow_port, prefect_port, stack, stop, say)
        if stop.is_set():
            return
        keep_deployments(workspace, prefect, services)
        patience = longest_stop(program.orchestration.grace_seconds)

        def note() -> None:
            write_record(workspace, mlflow, prefect, pids(services), patience)

        note()
        page = prefect.removesuffix("/api")
        say(web_pages.legend(mlflow, page, web_pages.links(program, say)))
        say(legend(program, redact(page)))
        notices = None if config is None else Notices(config, overrides, workspace)
        _watch(services, stop, say, note, notices)


def show_pages(
    program: ProgramConfig,
    *,
    mlflow_port: int = 5000,
    prefect_port: int = 4200,
    say: Callable[[str], None] = print,
) -> None:
    """Start MLflow's and Prefect's pages, print their addresses, wait for Ctrl-C, stop both.

    A port in use is replaced by a free one. A store on a server (`MLFLOW_TRACKING_URI=http…`) and a
    Prefect server that is up already have their own pages: only their addresses are printed.

    Raises:
        AlignError: a server does not come up, or dies again and again.
    """
    with _until_ctrl_c() as (stack, stop):
        services, mlflow, prefect = _servers(program, mlflow_port, prefect_port, stack, stop, say)
        if not stop.is_set():
            page = prefect.removesuffix("/api")
            say(web_pages.legend(mlflow, page, web_pages.links(program, say)))
        _watch(services, stop, say)


@contextmanager
def _until_ctrl_c() -> Iterator[tuple[ExitStack, threading.Event]]:
    """What is to be stopped at the end, and the event that Ctrl-C and SIGTERM set."""
    stop = threading.Event()
    with ExitStack() as stack:
        # Before the first child starts, so that none is ever left behind.
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, web_pages.setter(stop)))
        yield stack, stop


def _servers(
    program: ProgramConfig,
    mlflow_port: int,
    prefect_port: int,
    stack: ExitStack,
    stop: threading.Event,
    say: Callable[[str], None],
) -> tuple[list[Supervised], str, str]:
    """MLflow's and Prefect's servers once they answer: those that are ours, and both addresses."""
    workspace = program.workspace.resolve()
    say(f"starting the servers of {program.name} …")
    for risk, remedy in network_notices(program):
        say(f"warning: {risk}; {remedy}")
    services: list[Supervised] = []
    stack.callback(drop_note, workspace)
    stack.callback(stop_all, services, program.orchestration.grace_seconds)
    web_pages.settle_history(program, say)
    mlflow = keep_mlflow(program, mlflow_port, services, say)
    prefect = keep_prefect(workspace, prefect_port, services, say, [urlsplit(mlflow).port or 0])
    children = [service.child for service in services]
    web_pages.wait_for(lambda: answers(f"{prefect}/health"), children, stop)
    web_pages.wait_for(lambda: answers(f"{mlflow}/health"), children, stop)
    return services, mlflow, prefect


def _watch(
    services: list[Supervised],
    stop: threading.Event,
    say: Callable[[str], None],
    restarted: Callable[[], None] = lambda: None,
    notices: Notices | None = None,
) -> None:
    """Start again what ends, until `stop`; and say what is new."""
    looked = 0.0
    while not stop.wait(0.5):
        if notices is not None and time.monotonic() - looked > NOTICE_EVERY:
            looked = time.monotonic()
            notices.look(say)
        for service in services:
            before = service.child
            service.restart_if_dead(say)
            if service.child is not before:
                restarted()
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
