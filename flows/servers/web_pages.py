"""The pages of MLflow and Prefect: a server, the addresses, and waiting for both."""

import os
import socket
import sys
import threading
from collections.abc import Callable, Collection
from types import FrameType
from urllib.parse import urlsplit

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError, ConfigError, redact
from alignment.tracking.links import Links, find_links
from alignment.tracking.rebuild import catch_up
from alignment.tracking.store import (
    SERVED,
    artifacts_of,
    moved_from,
    provide_database,
    store_uri,
)
from flows.servers.child_process import Child, free_port, port_taken
from flows.servers.prefect_server import START_LIMIT


def mlflow_child(program: ProgramConfig, port: int) -> Child:
    """MLflow's server over the program's store, on loopback."""
    provide_database(program)
    workspace = program.workspace.resolve()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    artifacts = artifacts_of(workspace).as_uri()
    return Child(
        "the MLflow server",
        [*command, "--port", str(port), "--default-artifact-root", artifacts],
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


def usable_port(
    port: int, name: str, say: Callable[[str], None], others: Collection[int] = ()
) -> int:
    """`port`, or a free one if somebody has it or it is among `others`, which are taken soon.

    Raises:
        ConfigError: no process of this user may listen there, or there is no such port.
    """
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
            probe.bind(("127.0.0.1", port))
        taken = port_taken(port) or port in others
    except (OverflowError, PermissionError) as error:
        raise ConfigError(
            f"{name} cannot have port {port}: {error}",
            where=f"--{name.lower()}-port",
            remedy="choose one from 1024 to 65535",
        ) from None
    except OSError:
        taken = True
    if not taken:
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
        why = redact(str(error)).strip().partition("\n")[0]
        say(f"no direct links into MLflow ({type(error).__name__}: {why})")
        return None


def settle_history(program: ProgramConfig, say: Callable[[str], None]) -> None:
    """Write the history of a copied or moved workspace anew before it is shown."""
    if program.tracking.enabled and moved_from(program) is not None:
        say("this workspace was copied or moved: its MLflow history is written anew …")
        try:
            catch_up(program)
        except AlignError as error:
            say(str(error))


def wait_for(ready: Callable[[], bool], children: list[Child], stop: threading.Event) -> None:
    """Wait until `ready()` or `stop`.

    Raises:
        AlignError: a child has ended, or it takes too long.
    """
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
    """A signal handler that sets `stop`."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():  # asked twice: somebody is in a hurry
            os._exit(130)
        stop.set()

    return handle
