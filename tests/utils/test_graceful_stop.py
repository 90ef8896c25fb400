"""Ctrl-C and SIGTERM wait for the next checkpoint, but not for ever."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from alignment.utils import graceful_stop

LONG = 600.0


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Python's own for Ctrl-C, and one like the command's for SIGTERM; put back afterwards."""

    def terminated(_number: int, _frame: object) -> None:
        raise InterruptedError("SIGTERM")

    before = {number: signal.getsignal(number) for number in graceful_stop.SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, terminated)
    ours = {number: signal.getsignal(number) for number in graceful_stop.SIGNALS}
    yield
    assert {number: signal.getsignal(number) for number in graceful_stop.SIGNALS} == ours
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def work(
    steps: Callable[[], None],
    grace: float = LONG,
    say: Callable[[str], None] = lambda _message: None,
) -> None:
    """Do the steps as a stage's work."""
    with graceful_stop.held(grace, say):
        steps()


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, InterruptedError)]
)
def test_a_signal_waits_for_the_next_checkpoint(number: int, error: type[BaseException]) -> None:
    saved = []

    def steps() -> None:
        for step in range(1, 10):
            if step == 3:
                send(number)
                if number == signal.SIGTERM:
                    send(number)  # machines repeat themselves; people mean it
            if step % 5 == 0 or graceful_stop.stop_requested():
                saved.append(step)
                graceful_stop.stop_if_requested()

    with pytest.raises(error):
        work(steps)
    assert saved == [3]
    assert not graceful_stop.stop_requested()


def test_a_stage_that_is_nearly_done_is_done_first() -> None:
    done = []

    def steps() -> None:
        send(signal.SIGINT)
        done.append("committed")

    with pytest.raises(KeyboardInterrupt):
        work(steps)
    assert done == ["committed"]


def test_it_is_said_once_and_not_by_the_handler() -> None:
    """What was interrupted may hold the lock that saying it takes."""
    said: list[str] = []
    talking, told = threading.Lock(), threading.Event()

    def say(message: str) -> None:
        with talking:
            said.append(message)
        told.set()

    def steps() -> None:
        with talking:
            send(signal.SIGTERM)
            send(signal.SIGTERM)
        assert told.wait(10.0)

    with pytest.raises(InterruptedError):
        work(steps, say=say)
    assert said == ["stops at the next checkpoint, in 600 s at the latest"]


def test_nothing_is_left_open() -> None:
    """Neither files nor threads: thousands of stages may pass in one process."""
    before = psutil.Process().num_fds(), threading.active_count()
    for number in range(50):
        with (
            contextlib.suppress(KeyboardInterrupt),
            graceful_stop.held(LONG, lambda _message: None),
        ):
            if number % 2:
                send(signal.SIGINT)
    for _ in range(100):
        now = psutil.Process().num_fds(), threading.active_count()
        if now <= before:
            return
        time.sleep(0.05)
    raise AssertionError((before, now))


def test_a_second_ctrl_c_is_obeyed_at_once() -> None:
    def steps() -> None:
        send(signal.SIGINT)
        send(signal.SIGINT)
        raise AssertionError("went on")

    with pytest.raises(KeyboardInterrupt):
        work(steps)


def test_nothing_is_waited_for_longer_than_the_grace() -> None:
    def steps() -> None:
        send(signal.SIGINT)
        time.sleep(LONG)
        raise AssertionError("went on")

    with pytest.raises(KeyboardInterrupt):
        work(steps, grace=0.2)


def test_an_error_of_a_stage_that_was_told_to_stop_is_kept_as_the_reason() -> None:
    def steps() -> None:
        send(signal.SIGINT)
        raise ValueError("lost")

    with pytest.raises(KeyboardInterrupt) as caught:
        work(steps)
    assert isinstance(caught.value.__context__, ValueError)


def test_no_grace_means_at_once() -> None:
    def steps() -> None:
        send(signal.SIGINT)
        raise AssertionError("went on")

    with pytest.raises(KeyboardInterrupt):
        work(steps, grace=0.0)


def test_without_a_signal_nothing_happens() -> None:
    with graceful_stop.held(LONG, lambda _message: None):
        assert not graceful_stop.stop_requested()
        graceful_stop.stop_if_requested()
    graceful_stop.stop_if_requested()


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with graceful_stop.held(LONG, lambda _message: None):
            send(signal.SIGINT)
            assert not graceful_stop.stop_requested()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_have_no_signals_to_hold() -> None:
    entered = threading.Event()

    def elsewhere() -> None:
        with graceful_stop.held(LONG, lambda _message: None):
            entered.set()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert entered.is_set()


def test_of_several_processes_all_stop_at_the_same_step(tmp_path: Path) -> None:
    """The signal reaches the second one at step 3, and the first, which writes, never."""
    (tmp_path / "shared_work.py").write_text(
        "import os, pathlib, signal, sys, time\n"
        "from alignment.utils import distributed, graceful_stop\n"
        "distributed.join('cpu')\n"
        "saved = pathlib.Path(sys.argv[1])\n"
        "with graceful_stop.held(600.0, print):\n"
        "    for step in range(1, 9):\n"
        "        distributed.total(1.0)\n"
        "        if step == 3 and distributed.rank() == 1:\n"
        "            os.kill(os.getpid(), signal.SIGTERM)\n"
        "        if graceful_stop.stop_requested():\n"
        "            if distributed.is_first():\n"
        "                saved.write_text(str(step))\n"
        "            until = time.monotonic() + 20\n"
        "            while not saved.exists() and time.monotonic() < until:\n"
        "                time.sleep(0.01)\n"
        "            graceful_stop.stop_if_requested()\n"
    )
    saved = tmp_path / "saved"
    command = [sys.executable, "-m", "alignment.execution.launcher", "2", "shared_work", str(saved)]
    environment = dict(os.environ) | {"PYTHONPATH": f"{Path(__file__).parents[2]}:{tmp_path}"}
    done = subprocess.run(command, env=environment, timeout=120, check=False, capture_output=True)
    assert done.returncode != 0
    assert saved.read_text() == "3"
