"""The pages: MLflow and Prefect on loopback, for one workspace."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from types import FrameType
from urllib.parse import urlsplit

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError, redact
from alignment.tracking.links import Links, find_links
from alignment.tracking.store import SERVED, store_uri
from alignment.utils.http import answers
from flows.servers.child_process import Child, free_port, port_taken
from flows.servers.prefect_environment import home
from flows.servers.prefect_server import NOTE, START_LIMIT, find_server, start_server


def serve(
    program: ProgramConfig,
    *,
    mlflow_port: int = 5000,
    prefect_port: int = 4200,
    say: Callable[[str], None] = print,
) -> None:
    """Start both, print their addresses, and wait for Ctrl-C; then stop both.

    A port in use is replaced by a free one. A store on a server (`MLFLOW_TRACKING_URI=http…`) and a
    Prefect server that is up already have their own pages: only their addresses are printed.

    Raises:
        AlignError: a server does not come up.
    """
    workspace = program.workspace.resolve()
    stop = threading.Event()
    with ExitStack() as stack:
        # Before the first child starts, so that none is ever left behind.
        for number in (signal.SIGINT, signal.SIGTERM):
            stack.callback(signal.signal, number, signal.signal(number, setter(stop)))
        say(f"starting the pages of {program.name} …")
        pages = start_mlflow(program, mlflow_port, stack, say)
        prefect = start_prefect(program, prefect_port, stack, say)
        watched = [child for child in (pages.child, prefect.child) if child is not None]
        wait_for(pages.ready, watched, stop)
        wait_for(prefect.ready, watched, stop)
        if not stop.is_set():
            say(legend(pages.url, prefect.url, links(program, say)))
        while not stop.wait(0.5):
            for child in watched:
                if not child.running():
                    raise AlignError(
                        f"{child.name} ended: {child.last_line()}", where=str(child.log)
                    )
        say("\nstopping …")
    (home(workspace) / NOTE).unlink(missing_ok=True)


class Page:
    """Something with an address, and perhaps a process of ours behind it."""

    def __init__(self, url: str, health: str, child: Child | None = None):
        self.url = url
        self.child = child
        self._health = health

    def ready(self) -> bool:
        """Whether it answers."""
        return answers(self._health)


def start_mlflow(
    program: ProgramConfig, port: int, stack: ExitStack, say: Callable[[str], None]
) -> Page:
    """MLflow's pages over the program's store."""
    uri = store_uri(program)
    if urlsplit(uri).scheme in ("http", "https"):
        return Page(uri, f"{uri.rstrip('/')}/health")
    port = usable_port(port, "MLflow", say)
    child = mlflow_child(program, port)
    stack.callback(child.stop)
    url = f"http://127.0.0.1:{port}"
    return Page(url, f"{url}/health", child)


def mlflow_child(program: ProgramConfig, port: int) -> Child:
    """MLflow's server over the program's store, on loopback."""
    workspace = program.workspace.resolve()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    return Child(
        "the MLflow server",
        [
            *command,
            "--port",
            str(port),
            "--default-artifact-root",
            (workspace / "mlartifacts").as_uri(),
            "--workers",
            "1",
        ],
        {
            # Not among the arguments, which every user of the machine can list.
            "MLFLOW_BACKEND_STORE_URI": store_uri(program),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            # Job runners for features of agents: eight processes and half a gigabyte.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        workspace / "mlflow-server.log",
        holds=workspace / SERVED,
    )


def start_prefect(
    program: ProgramConfig, port: int, stack: ExitStack, say: Callable[[str], None]
) -> Page:
    """Prefect's pages over the workspace's database, unless a server is up already."""
    workspace = program.workspace.resolve()
    server = find_server(workspace, say)
    if server is None:
        port = usable_port(port, "Prefect", say)
        server = start_server(workspace, port=port, embedded=False)
        stack.callback(server.stop)
    return Page(server.url.removesuffix("/api"), f"{server.url}/health", server.child)


def usable_port(port: int, name: str, say: Callable[[str], None]) -> int:
    """`port`, or a free one if somebody has it."""
    if not port_taken(port):
        return port
    other = free_port()
    say(f"port {port} is in use: {name} takes {other}")
    return other


def legend(mlflow: str, prefect: str, links: Links | None) -> str:
    """The addresses, and where to look first."""
    mlflow, prefect = redact(mlflow), redact(prefect)
    lines = ["", f"  MLflow   {mlflow}"]
    if links is not None:
        named = {
            "versions, table": links.table,
            "versions, charts": links.charts,
            "answers": links.samples,
            "compare versions": links.compare,
            "over versions": links.progress,
            "models": links.models,
        }
        lines += [f"    {name:16}  {mlflow}{path}" for name, path in named.items() if path]
    lines += [
        f"  Prefect  {prefect}",
        f"    runs              {prefect}/runs",
        "",
        "  Ctrl-C stops both. From another machine: ssh -L "
        f"{urlsplit(mlflow).port}:127.0.0.1:{urlsplit(mlflow).port} -L "
        f"{urlsplit(prefect).port}:127.0.0.1:{urlsplit(prefect).port} THIS-HOST",
    ]
    return "\n".join(lines)


def links(program: ProgramConfig, say: Callable[[str], None]) -> Links | None:
    """Addresses inside MLflow's pages; the pages work without them."""
    try:
        return find_links(program)
    except Exception as error:
        say(redact(f"no direct links into MLflow ({type(error).__name__}: {error})"))
        return None


def wait_for(ready: Callable[[], bool], children: list[Child], stop: threading.Event) -> None:
    waited = 0.0
    while not ready() and not stop.is_set():
        for child in children:
            if not child.running():
                child.wait_until(lambda: False, 0)  # raises, with the last line of its log
        if waited > START_LIMIT:
            raise AlignError(f"the pages did not answer within {START_LIMIT:.0f} s")
        stop.wait(0.2)
        waited += 0.2


def setter(stop: threading.Event) -> Callable[[int, FrameType | None], None]:
    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():  # asked twice: somebody is in a hurry
            os._exit(130)
        stop.set()

    return handle
