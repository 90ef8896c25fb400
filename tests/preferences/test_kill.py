"""Killed anywhere, a batch is in whole or not at all."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from alignment.config.intake import IntakeConfig
from alignment.preferences.store import PreferenceStore

KILLS = 24
PROGRAM = """
import sys
from pathlib import Path
import pyarrow.parquet
from alignment.config.intake import IntakeConfig
from alignment.preferences.intake import ingest
from alignment.preferences.store import PreferenceStore

print("ready", flush=True)
sys.stdin.readline()
for path in sys.argv[2:]:
    ingest(PreferenceStore(Path(sys.argv[1])), [path], IntakeConfig())
    print("done", flush=True)
"""


def deliveries(directory: Path) -> list[Path]:
    paths = []
    for number in range(3):
        path = directory / f"safety-{number}.jsonl"
        with path.open("w") as file:
            for row in range(1500):
                conversation = [{"role": "user", "content": f"question {number} {row} " * 20}]
                file.write(
                    json.dumps({"conversation": conversation, "chosen": "yes", "rejected": "no"})
                    + "\n"
                )
        paths.append(path)
    return paths


def start(store: Path, paths: list[Path]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(store), *map(str, paths)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def go(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def check_whole(root: Path) -> int:
    """Every batch that is there is complete; returns how many."""
    store = PreferenceStore(root)
    batches = store.batches()
    for batch in batches:
        rows = store.training([batch.id]) + store.heldout([batch.id])
        assert len(rows) == len({row.id for row in rows}) == 1500
    assert [batch.sequence for batch in batches] == list(range(1, len(batches) + 1))
    return len(batches)


def test_kills_leave_no_half_batch_and_lose_or_double_no_row(tmp_path: Path) -> None:
    rng = random.Random(11)
    paths = deliveries(tmp_path)
    clean = tmp_path / "clean"
    process = start(clean, paths)
    began = time.monotonic()
    go(process)
    assert process.wait(60) == 0
    seconds = time.monotonic() - began
    counts = []
    for attempt in range(KILLS):
        root = tmp_path / f"store-{attempt}"
        process = start(root, paths)
        go(process)
        time.sleep(rng.uniform(0, 1.1 * seconds))
        os.kill(process.pid, signal.SIGKILL)
        process.wait(60)
        counts.append(check_whole(root))
    assert min(counts) < 3, f"no kill came in time: {counts}"
    # The same deliveries once more, on a store that was interrupted in the middle.
    root = tmp_path / f"store-{counts.index(min(counts))}"
    process = start(root, paths)
    go(process)
    assert process.wait(60) == 0
    assert check_whole(root) == 3
    for left, right in zip(
        PreferenceStore(clean).batches(), PreferenceStore(root).batches(), strict=True
    ):
        assert left.digest == right.digest


def test_two_at_once_make_one_batch(tmp_path: Path) -> None:
    paths = deliveries(tmp_path)[:1]
    processes = [start(tmp_path / "store", paths) for _ in range(2)]
    for process in processes:
        go(process)
    assert [process.wait(60) for process in processes] == [0, 0]
    assert check_whole(tmp_path / "store") == 1
    assert IntakeConfig().domains["*safety*"] == "safety"  # what the file names rely on
