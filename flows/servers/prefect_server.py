"""The Prefect server of a run: one that is up already, or one of our own for as long as we run."""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from alignment.errors import AlignError, redact
from alignment.utils.files import atomic_write_json, read_json
from alignment.utils.http import answers
from alignment.utils.processes import runs
from flows.servers.child_process import Child, free_port
from flows.servers.database import provide
from flows.servers.prefect_environment import home, server_environment

START_LIMIT = 300.0  # seconds; ten are enough on two quiet cores, a busy machine takes minutes
NOTE = "server.json"


class Server:
    """A Prefect server for a workspace.

    Attributes:
        url: its API address.
        child: the process, if it is ours.
    """

    def __init__(self, url: str, child: Child | None = None):
        self.url = url
        self.child = child

    def ready(self) -> bool:
        """Whether it answers."""
        return answers(f"{self.url}/health")

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            AlignError: it does not come up.
        """
        if self.child is not None:
            self.child.wait_until(self.ready, START_LIMIT)

    def stop(self) -> None:
        """Stop it if it is ours."""
        if self.child is not None:
            self.child.stop()


def find_server(workspace: Path, say: Callable[[str], None]) -> Server | None:
    """The server that `PREFECT_API_URL` names or that `align ui` runs for this workspace."""
    given = os.environ.get("PREFECT_API_URL")
    if given:
        if answers(f"{given.rstrip('/')}/health", timeout=3.0):
            return Server(given.rstrip("/"))
        say(f"no Prefect server answers at PREFECT_API_URL={redact(given)}: one is started here")
    note = home(workspace) / NOTE
    if note.is_file():
        try:
            known = read_json(note)
            url = str(known["url"])
        except (ValueError, KeyError):
            return None  # half written by a dying server
        if known.get("workspace", str(workspace.resolve())) != str(workspace.resolve()):
            return None  # copied with its workspace: the server is the original's
        if answers(f"{url}/health", timeout=3.0):
            return Server(url)
    return None


def drop_note(workspace: Path) -> None:
    """Remove the note of a server that has ended; one that still runs may be another command's."""
    note = home(workspace) / NOTE
    with contextlib.suppress(OSError, ValueError, KeyError):
        if runs(int(read_json(note)["pid"]), None):
            return
    note.unlink(missing_ok=True)


def start_server(workspace: Path, *, port: int | None = None, embedded: bool = True) -> Server:
    """Start a server; it is not up yet when this returns.

    Args:
        port: port on loopback; default any free one.
        embedded: for this run only: no pages, fewer services.

    Raises:
        AlignError: it cannot be started.
    """
    chosen = port or free_port()
    provide(home(workspace))
    command = [sys.executable, "-m", "prefect", "server", "start"]
    child = Child(
        "the Prefect server",
        [*command, "--host", "127.0.0.1", "--port", str(chosen)],
        server_environment(workspace, chosen, embedded=embedded),
        home(workspace) / "server.log",
    )
    server = Server(f"http://127.0.0.1:{chosen}/api", child)
    if not embedded:
        try:
            described = {"url": server.url, "pid": child.pid, "workspace": str(workspace.resolve())}
            atomic_write_json(home(workspace) / NOTE, described)
        except OSError as error:
            server.stop()
            raise AlignError(f"cannot write {home(workspace)}: {error}") from error
    return server
