"""Starts the processes of a stage at once, as forks of one that has imported everything.

Importing torch and transformers takes seconds, longer than many stages of a small model. Here
multiprocessing's fork server imports them once for all stages of a run. Only on Linux, and where
models compute on a CPU: no fork survives CUDA's start, nor the system libraries of macOS.

The forks die with this process, and the fork server ends with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

from alignment.config.compute import ComputeConfig
from alignment.execution.launcher import Child, launch
from alignment.utils.processes import die_with_this_parent

_IMPORTS = ["__main__", "alignment.execution.stage_imports"]
_LOST = 255  # multiprocessing's exit code of a fork whose fork server is gone
_GPUS = [Path("/dev") / name for name in ("nvidiactl", "kfd", "dxg")]


class Forked:
    """A fork that is watched and ended as a `subprocess.Popen` is, by one thread or many."""

    # A start polls all other forks, and of two threads that poll one at once the second loses its
    # exit code.
    _one_at_a_time = threading.Lock()

    def __init__(self, process: BaseProcess):
        self._process = process
        with self._one_at_a_time:
            process.start()
        self.pid = int(process.pid or 0)

    def poll(self) -> int | None:
        with self._one_at_a_time:
            code = self._process.exitcode
        return -signal.SIGKILL if code == _LOST else code  # it died with the fork server

    def wait(self, timeout: float | None = None) -> int:
        if not connection.wait([self._process.sentinel], timeout):
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        with self._one_at_a_time:
            self._process.join()
        code = self.poll()
        assert code is not None
        return code

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def can_fork(compute: ComputeConfig) -> bool:
    """Whether stages of this program can be forks."""
    return sys.platform == "linux" and on_cpu(compute) and compute.launch is None


def on_cpu(compute: ComputeConfig) -> bool:
    """Whether models compute on CPUs, told without torch: no GPU is asked for, or none is here."""
    return compute.device == "cpu" or not any(path.exists() for path in _GPUS)


def fork_module(module: str, arguments: Sequence[str], processes: int, log: Path) -> Child:
    """Call `module.run(arguments)` in so many processes that share the work and append to `log`.

    The child has a session of its own. Its environment and directory are this process's.

    Raises:
        OSError, EOFError: the fork server cannot start, or ended while it imported.
    """
    _preload()
    server = multiprocessing.get_context("forkserver")
    task = _Task(module, tuple(arguments), dict(os.environ))
    return Forked(server.Process(target=_begin, args=(task, processes, log.absolute(), Path.cwd())))


def begin_imports() -> None:
    """Start the fork server, unless it runs: it imports while this process works on."""
    _preload()
    with contextlib.suppress(OSError):  # the first fork will tell
        forkserver.ensure_running()


def _preload() -> None:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([*_IMPORTS, *_main_module()])


def _main_module() -> list[str]:
    """What this process runs with `python -m`, which each fork imports: in a deployment Prefect's
    engine, two seconds. Nothing, where multiprocessing leaves it alone too."""
    name = getattr(sys.modules["__main__"].__spec__, "name", "__main__")
    return [] if name.endswith("__main__") else [name]


@dataclass(frozen=True)
class _Task:
    module: str
    arguments: tuple[str, ...]
    environment: dict[str, str]


def _begin(task: _Task, processes: int, log: Path, place: Path) -> None:
    """In the child: do the task, or launch the processes that do."""
    die_with_this_parent()  # the fork server
    _die_with_who_asked()
    # Each fork holds the pipe by whose end the fork server learns that nobody needs it any more.
    os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    os.chdir(place)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the fork server blocks some
    if processes == 1:
        _do(task)
        return
    forks = multiprocessing.get_context("fork")

    def start(environment: dict[str, str]) -> Child:
        return Forked(forks.Process(target=_do, args=(replace(task, environment=environment),)))

    sys.exit(launch(processes, start, task.environment))


def _die_with_who_asked() -> None:
    """Have the kernel kill this process at once when the process that asked for it dies.

    The fork server takes seconds to end then, and whoever waits for the workspace begins at once.
    """
    asked = multiprocessing.parent_process()
    assert asked is not None
    pipe = int(asked.sentinel)  # its other end closes with that process
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if connection.wait([pipe], 0):  # it had died before
        os._exit(128 + signal.SIGKILL)


def _do(task: _Task) -> None:
    die_with_this_parent()
    os.environ.clear()
    os.environ.update(task.environment)
    threads = task.environment.get("OMP_NUM_THREADS", "").split(",")[0]  # "4,2" is for nested loops
    if threads.isdigit() and int(threads) > 0:  # torch read another when it was imported
        import torch

        torch.set_num_threads(int(threads))
    importlib.import_module(task.module).run(task.arguments)
