"""Forks of the fork server: what they get, how they end, and that they never outlive who asked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from alignment.config.compute import ComputeConfig
from alignment.execution import warm_start
from alignment.execution.launcher import Child
from alignment.execution.warm_start import can_fork, fork_module
from alignment.utils.processes import runs

FULL = tuple(warm_start._IMPORTS)
LIGHT = ["torch", "alignment.execution.warm_start"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux alone")

TASK = textwrap.dedent(
    """
    import json, os, signal, sys, time
    from pathlib import Path

    def run(arguments):
        folder, what = Path(arguments[0]), arguments[1]
        rank = os.environ.get("RANK", "0")
        if what == "polite":
            signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        told = {
            "pid": os.getpid(), "place": os.getcwd(),
            "modules": {"trl", "slow_end"} <= set(sys.modules),
            "mark": os.environ.get("MARK"), "world": os.environ.get("WORLD_SIZE", "1"),
        }
        (folder / f"{rank}.new").write_text(json.dumps(told))
        (folder / f"{rank}.new").rename(folder / rank)
        print("said by", rank, flush=True)
        every = [folder / str(number) for number in range(int(told["world"]))]
        while what in ("fail", "raise") and not all(path.exists() for path in every):
            time.sleep(0.01)  # whoever is left when one fails is killed, and tells nothing
        if what == "fail" and rank == "0":
            sys.exit(7)
        if what == "raise":
            raise ValueError("it broke")
        while what != "end":
            time.sleep(0.02)
        os._exit(0)
    """
)


@pytest.fixture(scope="module", autouse=True)
def own_server() -> Iterator[None]:
    """A fork server of this module: a test before it may have started one, with other imports."""
    end_server()
    yield
    end_server()


def end_server() -> None:
    server: Any = forkserver._forkserver  # type: ignore[attr-defined]
    if server._forkserver_pid is not None:
        os.kill(server._forkserver_pid, signal.SIGKILL)
        stop_server()


def stop_server() -> None:
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def server_pid() -> int:
    return int(forkserver._forkserver._forkserver_pid)  # type: ignore[attr-defined]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "forked_task.py").write_text(TASK)
    slow_end = "import atexit, time\natexit.register(time.sleep, 15)\n"
    (tmp_path / "slow_end.py").write_text(slow_end)
    monkeypatch.setattr(warm_start, "_IMPORTS", LIGHT)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def begin(folder: Path, what: str, processes: int = 1) -> Child:
    return fork_module("forked_task", [str(folder), what], processes, folder / "log")


def told(folder: Path, rank: int = 0) -> dict[str, object]:
    """What a process says of itself, once it works."""
    until = time.monotonic() + 60
    while not (folder / str(rank)).exists():
        assert time.monotonic() < until, (folder / "log").read_text()
        time.sleep(0.01)
    found: dict[str, object] = json.loads((folder / str(rank)).read_text())
    return found


def ended(pids: Sequence[int], within: float = 20.0) -> None:
    until = time.monotonic() + within
    while any(runs(pid, None) for pid in pids) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(runs(pid, None) for pid in pids)


def test_a_fork_has_the_imports_and_todays_environment_directory_and_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_server()
    monkeypatch.setattr(warm_start, "_IMPORTS", ["slow_end", *FULL])
    assert begin(folder, "end").wait(180) == 0  # the fork server runs
    server = server_pid()
    os.kill(server, signal.SIGTERM)  # as who ends a whole process group does
    monkeypatch.setenv("MARK", "new")
    child = begin(folder, "end")
    assert child.wait(60) == 0
    found = told(folder)
    assert found == {
        "pid": child.pid,
        "modules": True,
        "place": str(folder),
        "mark": "new",
        "world": "1",
    }
    assert (folder / "log").read_text() == "said by 0\n" * 2
    assert server_pid() == server
    asked_to_end_before_it_has_begun(folder)
    began = time.monotonic()
    stop_server()
    assert time.monotonic() - began < 10, "it unloads nothing"


@pytest.mark.parametrize(("what", "code"), [("fail", 7), ("raise", 1)])
@pytest.mark.parametrize("processes", [1, 2])
def test_a_failure_is_an_exit_code_and_ends_the_others(
    folder: Path, what: str, code: int, processes: int
) -> None:
    child = begin(folder, what, processes)
    assert child.wait(60) == code
    for rank in range(processes):
        assert told(folder, rank)["world"] == str(processes)
        assert not runs(int(str(told(folder, rank)["pid"])), None)
    assert ("ValueError: it broke" in (folder / "log").read_text()) == (what == "raise")


class Slow:
    """Takes half a second to reach a fork."""

    def __reduce__(self) -> tuple[Any, ...]:
        return time.sleep, (0.5,)


def asked_to_end_before_it_has_begun(folder: Path) -> None:
    (folder / "0").unlink()
    arguments: list[Any] = [str(folder), "wait", Slow()]
    child = fork_module("forked_task", arguments, 1, folder / "log")
    child.terminate()
    assert child.wait(20) == -signal.SIGTERM
    assert not (folder / "0").exists()


def test_threads_that_look_at_one_child_see_one_exit_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = begin(folder, "end")
    read = forkserver.read_signed

    def slow(descriptor: int) -> int:
        time.sleep(0.2)
        return int(read(descriptor))

    monkeypatch.setattr(forkserver, "read_signed", slow)
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(lambda _: child.wait(60), range(2))) == [0, 0]
    assert child.poll() == 0


@pytest.mark.parametrize("processes", [1, 2])
def test_it_is_asked_to_end_and_killed_as_any_child(folder: Path, processes: int) -> None:
    child = begin(folder, "polite", processes)
    pids = [int(str(told(folder, rank)["pid"])) for rank in range(processes)]
    time.sleep(0.2)  # the launcher, too, is ready
    child.terminate()
    assert child.wait(60) == (0 if processes == 1 else 128 + signal.SIGTERM)
    for rank in range(processes):
        (folder / str(rank)).unlink()
    child = begin(folder, "wait", processes)
    pids += [int(str(told(folder, rank)["pid"])) for rank in range(processes)]
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.01)
    os.killpg(child.pid, signal.SIGKILL)
    assert child.wait(60) == -signal.SIGKILL
    ended(pids)


def test_a_killed_parent_takes_them_along_before_the_fork_server_ends(folder: Path) -> None:
    """With all libraries it takes it three seconds; the lock on the workspace is free at once."""
    script = f"""
from pathlib import Path
from alignment.execution import warm_start
warm_start._IMPORTS = ["slow_end"]
child = warm_start.fork_module("forked_task", [{str(folder)!r}, "wait"], 2, Path("log"))
child.wait()
"""
    root = Path(warm_start.__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, "-c", script], env={"PYTHONPATH": f"{root}:{folder}"}, cwd=folder
    )
    pids = [int(str(told(folder, rank)["pid"])) for rank in (0, 1)]
    parent.kill()
    parent.wait()
    ended(pids, within=5)


def test_a_killed_fork_server_takes_them_along_and_another_one_starts(folder: Path) -> None:
    child = begin(folder, "wait", 2)
    pids = [int(str(told(folder, rank)["pid"])) for rank in (0, 1)]
    os.kill(server_pid(), signal.SIGKILL)
    assert child.wait(60) == -signal.SIGKILL
    ended(pids)
    assert begin(folder, "end").wait(60) == 0


def test_imports_can_begin_before_the_first_fork(folder: Path) -> None:
    warm_start.begin_imports()
    server = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    assert runs(server, None)
    assert begin(folder, "end").wait(60) == 0
    assert forkserver._forkserver._forkserver_pid == server  # type: ignore[attr-defined]


def test_no_fork_where_a_gpu_or_a_launcher_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_start, "_GPUS", [tmp_path / "gpu"])
    assert can_fork(ComputeConfig())
    assert not can_fork(ComputeConfig(processes=2, launch="torchrun {command}"))
    (tmp_path / "gpu").touch()
    assert not can_fork(ComputeConfig())
    assert can_fork(ComputeConfig(device="cpu"))
