"""Killed anywhere, a batch is in whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from alignment.preferences.store import PreferenceStore

KILLS = 25
PROGRAM = """
# Imports once, then forks a child for every intake: a fresh interpreter each would take seconds.
import os
import sys
from pathlib import Path
import pandas  # pyarrow imports it when it first meets a numpy array
import pyarrow.parquet
from alignment.config.intake import IntakeConfig
from alignment.preferences.intake import ingest
from alignment.preferences.store import PreferenceStore

print("ready", flush=True)
for line in sys.stdin:
    root, *paths = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if child == 0:
        for path in paths:
            ingest(PreferenceStore(Path(root)), [path], IntakeConfig())
        os._exit(0)
    print(child, flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


class Intakes:
    """Runs intakes in child processes that can be killed."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert self._read() == "ready"

    def run(self, store: Path, paths: list[Path], kill_after: float | None = None) -> None:
        """Ingest `paths` one after the other; with `kill_after` seconds, kill -9 then."""
        assert self._process.stdin is not None
        self._process.stdin.write("\t".join(map(str, [store, *paths])) + "\n")
        self._process.stdin.flush()
        child = int(self._read())
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):  # it may be done already
                os.kill(child, signal.SIGKILL)
        assert self._read() == "gone"

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@pytest.fixture
def intakes() -> Iterator[Intakes]:
    running = Intakes()
    yield running
    running.close()


def deliveries(directory: Path) -> list[Path]:
    paths = []
    for number in range(3):
        path = directory / f"safety-{number}.jsonl"
        with path.open("w") as file:
            for row in range(400):
                conversation = [{"role": "user", "content": f"question {number} {row} " * 20}]
                file.write(
                    json.dumps({"conversation": conversation, "chosen": "yes", "rejected": "no"})
                    + "\n"
                )
        paths.append(path)
    return paths


def check_whole(root: Path) -> int:
    """Every batch that is there is complete; returns how many."""
    store = PreferenceStore(root)
    batches = store.batches()
    for batch in batches:
        rows = store.training([batch.id]) + store.heldout([batch.id])
        assert len(rows) == len({row.id for row in rows}) == 400
    assert [batch.sequence for batch in batches] == list(range(1, len(batches) + 1))
    return len(batches)


def test_kills_leave_no_half_batch_and_lose_or_double_no_row(
    intakes: Intakes, tmp_path: Path
) -> None:
    rng = random.Random(11)
    paths = deliveries(tmp_path)
    clean = tmp_path / "clean"
    began = time.monotonic()
    intakes.run(clean, paths)
    seconds = time.monotonic() - began
    assert check_whole(clean) == 3
    counts = []
    root = tmp_path / "killed-0"
    for attempt in range(KILLS):
        intakes.run(root, paths, kill_after=rng.uniform(0, 0.8 * seconds))
        counts.append(check_whole(root))
        if counts[-1] == 3:  # whole: begin another
            root = tmp_path / f"killed-{attempt + 1}"
    assert counts.count(3) < KILLS, "no kill came in time"
    # The same deliveries once more, on a store that was interrupted many times.
    intakes.run(root, paths)
    assert check_whole(root) == 3
    assert not (root / "incoming").exists()
    for left, right in zip(
        PreferenceStore(clean).batches(), PreferenceStore(root).batches(), strict=True
    ):
        assert left.digest == right.digest


def test_two_at_once_make_one_batch(tmp_path: Path) -> None:
    paths = deliveries(tmp_path)[:1]
    both = [Intakes(), Intakes()]
    threads = [threading.Thread(target=each.run, args=(tmp_path / "store", paths)) for each in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for each in both:
        each.close()
    assert check_whole(tmp_path / "store") == 1
