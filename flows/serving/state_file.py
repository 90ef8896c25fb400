"""The state file of `align serve`, and `align down`, which stops the processes named there."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import psutil

from alignment.errors import AlignError, redact
from alignment.utils.files import atomic_write_json, read_json
from flows.servers.prefect_environment import home
from flows.servers.prefect_server import drop_note

RECORD = "serve.json"
PATIENCE = 60.0  # seconds, for records without
SLACK = 10.0


def write_record(
    workspace: Path, mlflow: str, prefect: str, children: Mapping[str, int], patience: float
) -> None:
    """Write down this process, the addresses, its children, and how many seconds stopping may
    take."""
    atomic_write_json(
        home(workspace) / RECORD,
        {
            "workspace": str(workspace.resolve()),
            "process": _described(os.getpid()),
            "mlflow": redact(mlflow),
            "prefect": redact(prefect),
            "patience": patience,
            "children": {name: _described(pid) for name, pid in children.items()},
        },
    )


def record(workspace: Path) -> dict[str, object] | None:
    """The state file's content: process, addresses, children; None if there is none.

    Also None where the workspace was copied: what the file names serves the original.
    """
    path = home(workspace) / RECORD
    try:
        found = dict(read_json(path)) if path.is_file() else None
    except (TypeError, ValueError):
        return None
    here = str(workspace.resolve())
    return found if found is not None and found.get("workspace", here) == here else None


def alive(record: dict[str, object]) -> bool:
    """Whether the `align serve` that made this record still runs."""
    return _process(record.get("process")) is not None


def down(workspace: Path) -> list[str]:
    """Stop `align serve` of a workspace, and what a killed one left; returns what was stopped.

    Raises:
        AlignError: something does not end.
    """
    state = record(workspace)
    if state is None:
        return []
    stopped = []
    master = _process(state.get("process"))
    if master is not None:
        stopped.append("align serve")
        master.terminate()
        _gone([master], float(str(state.get("patience", PATIENCE))) + SLACK)
    left = [_process(item) for item in dict(state.get("children") or {}).values()]  # type: ignore[call-overload]
    alive = [process for process in left if process is not None]
    family = [child for process in alive for child in process.children(recursive=True)]
    for process in (*alive, *family):
        with contextlib.suppress(psutil.NoSuchProcess):
            stopped.append(" ".join(process.cmdline()[1:4]))
            process.terminate()
    _gone([*alive, *family], 20.0)
    forget(workspace)
    return stopped


def forget(workspace: Path) -> None:
    """Remove the state file, and the note of a Prefect server that has ended."""
    (home(workspace) / RECORD).unlink(missing_ok=True)
    drop_note(workspace)


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


def _process(described: object) -> psutil.Process | None:
    """The process that a record describes, if it is still the same one."""
    if not isinstance(described, dict):
        return None
    try:
        process = psutil.Process(int(described["pid"]))
        return process if abs(process.create_time() - float(described["born"])) < 2 else None
    except (psutil.NoSuchProcess, KeyError, TypeError, ValueError):
        return None
