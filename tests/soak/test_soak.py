"""Short editions of the soak and of the kill matrix; the long ones are run by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def script(name: str, *words: str, timeout: float) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "MLFLOW"))
    }
    return subprocess.run(
        [sys.executable, str(HERE / name), *words],
        env=environment | {"OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.timeout(1800)
def test_a_minute_of_soak(tmp_path: Path) -> None:
    done = script(
        "soak.py",
        str(tmp_path / "soak"),
        *("--minutes", "1", "--kills", "3", "--visits", "1", "--span", "10", "--seed", "5"),
        *("--versions", "2"),
        timeout=1700,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert told["kills_in_all"] == 3
    assert told["versions_done"] >= 1
    assert sum(told["exit_codes_of_align_run"].values()) == 2
    assert told["problems"] == []


@pytest.mark.timeout(900)
def test_every_stage_killed_and_stopped_once_gives_the_same_bytes(tmp_path: Path) -> None:
    words = (str(tmp_path / "matrix"), "--kills", "1", "--stops", "1")
    done = script("kill_matrix.py", *words, timeout=850)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert told["kills_in_all"] == len(told["kills"]) == 10
    assert len(told["stops"]) >= 4  # those with checkpoints, unless the signal came too late
    assert told["stages_that_differ"] == []
