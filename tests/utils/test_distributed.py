"""Several processes: shares, sums, and what becomes of the others when one fails or is killed."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from alignment.utils import distributed


def start(count: int, target: Path, mode: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "alignment.execution.launcher",
            str(count),
            "distributed_child",
            str(target),
            mode,
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def able() -> bool:
    """Whether two processes here talk through shared memory."""
    one = sys.platform == "linux" and platform.machine() == "x86_64"
    return one and len(os.sched_getaffinity(0)) > 1


@pytest.mark.parametrize("way", ["work", "sockets"])
def test_shares_sums_and_gathers(tmp_path: Path, way: str) -> None:
    assert start(2, tmp_path / "found", way).wait(120) == 0
    found = [json.loads((tmp_path / f"found.{rank}").read_text()) for rank in (0, 1)]
    assert found[0] == found[1]
    assert found[0] == {
        "shared": way == "work" and able(),
        "largest": 0.5,
        "size": 2,
        "shares": 5,
        "rows": [[i, i**2] for i in range(5)],
        "figures": {"loss": 2.0, "one": 2.0},
        "gradients": [[3.0, 3.0], [1.0, 2.0], None],
        "claimed": 15,
        "differs": "the processes cut that differently",
        "sum": [2.0, 1.0],
    }


def test_one_that_fails_ends_all(tmp_path: Path) -> None:
    assert start(2, tmp_path / "found", "fail").wait(120) == 7


def test_killing_the_launcher_leaves_nobody_behind(tmp_path: Path) -> None:
    process = start(2, tmp_path / "found", "wait")
    notes = [tmp_path / f"found.{rank}" for rank in (0, 1)]
    deadline = time.monotonic() + 120
    while not all(note.is_file() and note.read_text() for note in notes):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    children = [int(note.read_text()) for note in notes]
    while any(psutil.pid_exists(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_process_alone_pays_nothing() -> None:
    rows = torch.ones(3, 2)
    assert distributed.size() == 1
    assert distributed.share(5) == range(5)
    assert distributed.gather_rows(rows, 3) is rows
    assert distributed.sum_over_all(rows) is rows
    assert distributed.total(2.0) == 2.0
