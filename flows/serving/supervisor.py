"""The processes that `align serve` keeps alive."""

import contextlib
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.tracking.store import store_uri
from alignment.utils.http import answers
from flows.servers import web_pages
from flows.servers.child_process import Child
from flows.servers.prefect_environment import client_environment, home
from flows.servers.prefect_server import START_LIMIT, find_server, start_server

DEPLOYMENTS = "the deployments' process"
STOP_GRACE = 10.0
SLACK = 5.0


@dataclass
class Supervised:
    """A child that is started, and started again when it dies."""

    name: str
    start: Callable[[], Child]
    deaths: int = 0

    def __post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self.child, self.begun = self.start(), time.monotonic()

    def restart_if_dead(self, say: Callable[[str], None]) -> None:
        """Start it again if it has ended.

        Raises:
            AlignError: it dies again and again.
        """
        if self.child.running():
            return
        lived = time.monotonic() - self.begun
        self.deaths = self.deaths + 1 if lived < 20 else 1
        if self.deaths > 5:
            raise AlignError(
                f"{self.name} ended {self.deaths} times in a row: {self.child.last_line()}",
                where=str(self.child.log),
                remedy="the log says why",
            )
        say(f"{self.name} ended and is started again")
        self.child.stop(1.0)  # ends what it left behind
        self._begin()


def keep_mlflow(
    program: ProgramConfig, port: int, services: list[Supervised], say: Callable[[str], None]
) -> str:
    """Keep MLflow's server, unless the program has one elsewhere; returns its address."""
    uri = store_uri(program)
    if urlsplit(uri).scheme in ("http", "https"):
        return uri.rstrip("/")
    chosen = web_pages.usable_port(port, "MLflow", say)

    def start() -> Child:
        return web_pages.mlflow_child(program, chosen)

    services.append(Supervised("the MLflow server", start))
    return f"http://127.0.0.1:{chosen}"


def keep_prefect(
    workspace: Path,
    port: int,
    services: list[Supervised],
    say: Callable[[str], None],
    others: Collection[int] = (),
) -> str:
    """Keep Prefect's server, unless one is up; returns the address of its API.

    Args:
        others: ports of servers that may not listen yet.
    """
    server = find_server(workspace, say)
    if server is not None:
        return server.url
    chosen = web_pages.usable_port(port, "Prefect", say, others)

    def start() -> Child:
        child = start_server(workspace, port=chosen, embedded=False).child
        assert child is not None  # it is ours
        return child

    services.append(Supervised("the Prefect server", start))
    return f"http://127.0.0.1:{chosen}/api"


def keep_deployments(workspace: Path, prefect: str, services: list[Supervised]) -> None:
    """Keep the process that runs the deployments' flows."""
    environment = client_environment(workspace) | {
        "PREFECT_API_URL": prefect,
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
    }

    def start() -> Child:
        until = time.monotonic() + START_LIMIT
        while not answers(f"{prefect}/health") and time.monotonic() < until:
            time.sleep(0.2)
        return Child(
            "the deployments",
            [sys.executable, "-m", "flows.serving.worker", str(workspace)],
            environment,
            home(workspace) / "served.log",
        )

    services.append(Supervised(DEPLOYMENTS, start))


def pids(services: list[Supervised]) -> dict[str, int]:
    """Name → process id."""
    return {service.name: service.child.pid for service in services}


def stop_all(services: list[Supervised], grace: float) -> None:
    """Stop the deployments first, while their server is up, then the servers.

    Args:
        grace: seconds that a stage has to reach its next checkpoint.
    """
    for service in reversed(services):
        if service.name == DEPLOYMENTS:
            _stop_flows(service.child.pid, grace + SLACK)
        service.child.stop(STOP_GRACE)


def longest_stop(grace: float) -> float:
    """Seconds that `stop_all` takes at most."""
    return grace + SLACK + 3 * STOP_GRACE


def _stop_flows(deployments: int, patience: float) -> None:
    """Stop the flows before the process that started them, which would kill them (-9)."""
    with contextlib.suppress(psutil.NoSuchProcess):
        flows = psutil.Process(deployments).children()
        for flow in flows:
            with contextlib.suppress(psutil.NoSuchProcess):
                flow.terminate()
        psutil.wait_procs(flows, timeout=patience)
