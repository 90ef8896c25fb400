"""A stage in a process of its own never outlives who waits for it, and gets its grace before."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignment.config.compute import ComputeConfig
from alignment.execution import isolated_stage, start_command
from alignment.execution.isolated_stage import run_isolated
from alignment.pipeline.node import Node
from alignment.utils.processes import runs

NODE = Node("rlhf-v1", "reward_safety", "reward")
LONG = 600.0
POLITE = "trap 'sleep 0.3; echo saved >saved; exit 0' TERM"  # needs a moment for its checkpoint
STUBBORN = "trap '' TERM"


def stage(folder: Path, trap: str) -> Path:
    """What stands in for Python as the stage's process: works for ever and says its number."""
    python = folder / "python"
    python.write_text(
        f"#!/bin/sh\ncd {folder}\n{trap}\necho $$ >pid.new; mv pid.new pid\n"
        "while :; do sleep 0.05; done\n"
    )
    python.chmod(0o755)
    return python


def pid_in(folder: Path) -> int:
    """The stage's process, once it works."""
    while not (folder / "pid").exists():
        time.sleep(0.01)
    return int((folder / "pid").read_text())


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`started(trap, interrupted)`: run such a stage."""

    def run(trap: str, interrupted: Any = lambda: 0) -> None:
        python = str(stage(tmp_path, trap))
        monkeypatch.setattr(start_command, "sys", SimpleNamespace(executable=python))
        monkeypatch.setattr(isolated_stage, "can_fork", lambda _: False)
        log = tmp_path / "log"
        run_isolated(
            tmp_path,
            NODE,
            tmp_path,
            log,
            compute=ComputeConfig(),
            grace=LONG,
            interrupted=interrupted,
        )

    return run


def test_a_thread_is_interrupted_by_word(started: Any, tmp_path: Path) -> None:
    """Signals reach the main thread only: without the word this would wait for ever."""
    ends = [0]
    raised: list[type[BaseException]] = []

    def work() -> None:
        try:
            started(POLITE, lambda: ends[0])
        except BaseException as error:
            raised.append(type(error))

    thread = threading.Thread(target=work)
    thread.start()
    pid = pid_in(tmp_path)
    ends[0] += 1
    thread.join(60)
    assert raised == [KeyboardInterrupt]
    assert (tmp_path / "saved").exists(), "it had its grace"
    assert not runs(pid, None)


def test_a_second_word_is_obeyed_at_once(started: Any, tmp_path: Path) -> None:
    ends = [0]

    def tell() -> None:
        pid_in(tmp_path)
        ends[0] += 1
        time.sleep(0.5)
        ends[0] += 1

    threading.Thread(target=tell, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        started(STUBBORN, lambda: ends[0])
    assert not runs(pid_in(tmp_path), None)


def test_a_second_ctrl_c_leaves_nothing_behind(started: Any, tmp_path: Path) -> None:
    """What went on would write beside the next run, which need not wait for it."""

    def tell() -> None:
        pid_in(tmp_path)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.8)  # Popen gives a child a moment at Ctrl-C

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            started(STUBBORN)
        assert not runs(pid_in(tmp_path), None)
    finally:
        with contextlib.suppress(KeyboardInterrupt):
            teller.join()
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells of a death")
def test_a_killed_parent_takes_it_along_at_once(tmp_path: Path) -> None:
    """The workspace is free at that moment: the next run goes on in the same directory."""
    script = textwrap.dedent(
        f"""
        from pathlib import Path
        from types import SimpleNamespace
        from alignment.config.compute import ComputeConfig
        from alignment.execution import isolated_stage, start_command
        from alignment.pipeline.node import Node
        folder = Path({str(tmp_path)!r})
        start_command.sys = SimpleNamespace(executable={str(stage(tmp_path, STUBBORN))!r})
        isolated_stage.can_fork = lambda compute: False
        node = Node("rlhf-v1", "reward_safety", "reward")
        isolated_stage.run_isolated(
            folder, node, folder, folder / "log", compute=ComputeConfig(), grace=600.0
        )
        """
    )
    root = str(Path(__file__).parents[2])
    parent = subprocess.Popen([sys.executable, "-c", script], env={"PYTHONPATH": root})
    pid = pid_in(tmp_path)
    parent.kill()
    parent.wait()
    until = time.monotonic() + 20
    while runs(pid, None) and time.monotonic() < until:
        time.sleep(0.05)
    alive = runs(pid, None)
    if alive:
        os.killpg(pid, signal.SIGKILL)
    assert not alive
