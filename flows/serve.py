"""`align serve`: Prefect's server, MLflow's server and the deployments, kept alive until Ctrl-C.

    align serve ─┬─ prefect server
                 ├─ mlflow server
                 └─ flows.served ── one process per flow run

Children end with their parent, however it ends, and are started again when they die.
"""

import contextlib
import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError, LockedError
from alignment.files import atomic_write_json, read_json
from alignment.lock import workspace_lock
from alignment.preferences.inbox import inbox_dir
from alignment.preflight import preflight
from alignment.redact import redact
from alignment.tracking.store import store_uri
from flows import ui
from flows.environment import client_environment, home
from flows.processes import Child, answers, port_taken
from flows.server import NOTE, START_LIMIT, find_server, start_server

RECORD = "serve.json"
STOP_GRACE = 45.0  # seconds for a running stage to stop at its checkpoint
PORT_PATIENCE = 15.0  # seconds for a predecessor that was killed to leave its ports


@dataclass
class Kept:
    """A child that is started again when it dies."""

    name: str
    start: Callable[[], Child]
    child: Child
    deaths: int = 0
    begun: float = 0.0

    def look(self, say: Callable[[str], None]) -> None:
        """Start it again if it has ended; after repeated deaths only slowly.

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
        say(f"{self.name} ended; it is started again")
        self.child.stop(1.0)  # what it left behind
        self.child = self.start()
        self.begun = time.monotonic()


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
            stack.callback(signal.signal, number, signal.signal(number, ui.setter(stop)))
        stack.enter_context(_served_once(workspace))
        _keep_program(program)
        inbox_dir(workspace, program.intake).mkdir(parents=True, exist_ok=True)
        say(f"starting the servers of {program.name} …")
        _wait_for_ports(workspace, (mlflow_port, prefect_port))
        kept: list[Kept] = []
        stack.callback(_stop_all, kept)
        mlflow = _keep_mlflow(program, mlflow_port, kept, say)
        prefect = _keep_prefect(workspace, prefect_port, kept, say)
        ui.wait_for(lambda: answers(f"{prefect}/health"), [one.child for one in kept], stop)
        ui.wait_for(lambda: answers(f"{mlflow}/health"), [one.child for one in kept], stop)
        if stop.is_set():
            return
        _keep_deployments(workspace, prefect, kept)
        _write_record(workspace, mlflow, prefect, kept)
        page = prefect.removesuffix("/api")
        say(ui.legend(mlflow, page, ui.links(program, say)))
        say(legend(program, redact(page)))
        while not stop.wait(0.5):
            for one in kept:
                before = one.child
                one.look(say)
                if one.child is not before:
                    _write_record(workspace, mlflow, prefect, kept)
        say("\nstopping …")
    for name in (RECORD, NOTE):
        (home(workspace) / name).unlink(missing_ok=True)


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


def record(workspace: Path) -> dict[str, object] | None:
    """What `align serve` noted about itself: pid, addresses, children; None if there is none."""
    path = home(workspace) / RECORD
    try:
        return dict(read_json(path)) if path.is_file() else None
    except ValueError:
        return None


def alive(told: dict[str, object]) -> bool:
    """Whether the `align serve` that made this record still runs."""
    return _process(told.get("process")) is not None


def down(workspace: Path, patience: float = 60.0) -> list[str]:
    """Stop `align serve` of a workspace and whatever a killed one left; returns what was stopped.

    Raises:
        AlignError: something does not end.
    """
    told = record(workspace)
    if told is None:
        return []
    stopped = []
    master = _process(told.get("process"))
    if master is not None:
        stopped.append("align serve")
        master.terminate()
        _gone([master], patience)
    left = [_process(item) for item in dict(told.get("children") or {}).values()]  # type: ignore[call-overload]
    alive = [process for process in left if process is not None]
    family = [child for process in alive for child in process.children(recursive=True)]
    for process in (*alive, *family):
        with contextlib.suppress(psutil.NoSuchProcess):
            stopped.append(" ".join(process.cmdline()[1:4]))
            process.terminate()
    _gone([*alive, *family], 20.0)
    (home(workspace) / RECORD).unlink(missing_ok=True)
    (home(workspace) / NOTE).unlink(missing_ok=True)
    return stopped


def _gone(processes: list[psutil.Process], patience: float) -> None:
    _ended, alive = psutil.wait_procs(processes, timeout=patience)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _ended, alive = psutil.wait_procs(alive, timeout=5.0)
    if alive:
        raise AlignError(f"processes that do not end: {[process.pid for process in alive]}")


def _described(pid: int) -> dict[str, float] | None:
    try:
        return {"pid": pid, "born": psutil.Process(pid).create_time()}
    except psutil.NoSuchProcess:
        return None


def _process(told: object) -> psutil.Process | None:
    """The process that a record describes, if it is still the same one."""
    if not isinstance(told, dict):
        return None
    try:
        process = psutil.Process(int(told["pid"]))
        return process if abs(process.create_time() - float(told["born"])) < 2 else None
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return None


@contextmanager
def _served_once(workspace: Path) -> Iterator[None]:
    home(workspace).mkdir(parents=True, exist_ok=True)
    handle = os.open(home(workspace) / "serve.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(
                "this workspace is served already",
                where=str(workspace),
                remedy=f"stop that one first: align down -w {workspace}",
            ) from None
        yield
    finally:
        os.close(handle)


def _keep_program(program: ProgramConfig) -> None:
    """The deployments read the program from its workspace.

    Raises:
        LockedError: another process works there with other settings.
    """
    kept, values = program.workspace / "program.json", program.model_dump(mode="json")
    if kept.is_file() and read_json(kept) == values:
        return
    with workspace_lock(program.workspace):
        atomic_write_json(kept, values)


def _keep_mlflow(
    program: ProgramConfig, port: int, kept: list[Kept], say: Callable[[str], None]
) -> str:
    uri = store_uri(program)
    if urlsplit(uri).scheme in ("http", "https"):
        return uri.rstrip("/")
    chosen = ui.usable_port(port, "MLflow", say)

    def start() -> Child:
        return ui.mlflow_child(program, chosen)

    kept.append(Kept("the MLflow server", start, start(), begun=time.monotonic()))
    return f"http://127.0.0.1:{chosen}"


def _keep_prefect(workspace: Path, port: int, kept: list[Kept], say: Callable[[str], None]) -> str:
    server = find_server(workspace, say)
    if server is not None:
        return server.url
    chosen = ui.usable_port(port, "Prefect", say)

    def start() -> Child:
        child = start_server(workspace, port=chosen, embedded=False).child
        assert child is not None  # it is ours
        return child

    kept.append(Kept("the Prefect server", start, start(), begun=time.monotonic()))
    return f"http://127.0.0.1:{chosen}/api"


def _keep_deployments(workspace: Path, prefect: str, kept: list[Kept]) -> None:
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
            [sys.executable, "-m", "flows.served", str(workspace)],
            environment,
            home(workspace) / "served.log",
        )

    kept.append(Kept("the deployments' process", start, start(), begun=time.monotonic()))


def _write_record(workspace: Path, mlflow: str, prefect: str, kept: list[Kept]) -> None:
    atomic_write_json(
        home(workspace) / RECORD,
        {
            "process": _described(os.getpid()),
            "mlflow": redact(mlflow),
            "prefect": redact(prefect),
            "children": {one.name: _described(one.child.pid) for one in kept},
        },
    )


def _stop_all(kept: list[Kept]) -> None:
    """The deployments first, while there is a server to tell; the servers after them."""
    for one in reversed(kept):
        one.child.stop(STOP_GRACE if one.name.startswith("the deployments") else 10.0)


def _wait_for_ports(workspace: Path, ports: tuple[int, ...]) -> None:
    """After a `kill -9` the children of the last one may take a moment to leave their ports."""
    if record(workspace) is None:
        return
    until = time.monotonic() + PORT_PATIENCE
    while any(port_taken(port) for port in ports) and time.monotonic() < until:
        time.sleep(0.2)
