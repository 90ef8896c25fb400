"""Starts the processes of a stage at once, as forks of one that has imported everything.

Importing torch and transformers takes seconds, longer than many stages of a small model. Here
multiprocessing's fork server imports them once for all stages of a run. Only on Linux, and where
models compute on a CPU: no fork survives CUDA's start, nor the system libraries of macOS.

The fork server ends with this process, and its forks with it.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

from alignment.config.compute import ComputeConfig
from alignment.execution.launcher import Child, launch
from alignment.utils.processes import die_with_this_parent

_IMPORTS = ["__main__", "alignment.execution.stage_imports"]
_GPUS = [Path("/dev") / name for name in ("nvidiactl", "kfd", "dxg")]


class Forked:
    """A fork that is watched and ended as a `subprocess.Popen` is."""

    def __init__(self, process: BaseProcess):
        self._process = process
        process.start()
        self.pid = int(process.pid or 0)

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def can_fork(compute: ComputeConfig) -> bool:
    """Whether stages of this program can be forks."""
    on_cpu = compute.device == "cpu" or not any(path.exists() for path in _GPUS)
    return sys.platform == "linux" and on_cpu and compute.launch is None


def fork_module(module: str, arguments: Sequence[str], processes: int, log: Path) -> Child:
    """Call `module.run(arguments)` in so many processes that share the work and append to `log`.

    The child has a session of its own. Its environment and directory are this process's.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(_IMPORTS)
    task = _Task(module, tuple(arguments), dict(os.environ))
    return Forked(server.Process(target=_begin, args=(task, processes, log.absolute(), Path.cwd())))


@dataclass(frozen=True)
class _Task:
    module: str
    arguments: tuple[str, ...]
    environment: dict[str, str]


def _begin(task: _Task, processes: int, log: Path, place: Path) -> None:
    """In the child: do the task, or launch the processes that do."""
    die_with_this_parent()  # the fork server, which ends with the process that asked
    # Each fork holds the pipe by whose end the fork server learns that nobody needs it any more.
    os.close(forkserver._forkserver._forkserver_alive_fd)  # type: ignore[attr-defined]
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP):  # the fork server ignores them
        signal.signal(number, signal.SIG_DFL)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
    os.chdir(place)
    if processes == 1:
        _do(task)
        return
    forks = multiprocessing.get_context("fork")

    def start(environment: dict[str, str]) -> Child:
        return Forked(forks.Process(target=_do, args=(replace(task, environment=environment),)))

    sys.exit(launch(processes, start, task.environment))


def _do(task: _Task) -> None:
    die_with_this_parent()
    os.environ.clear()
    os.environ.update(task.environment)
    if "OMP_NUM_THREADS" in task.environment:  # torch read another when it was imported
        import torch

        torch.set_num_threads(int(task.environment["OMP_NUM_THREADS"]))
    importlib.import_module(task.module).run(task.arguments)
