"""Killed anywhere, a batch is in whole or not at all.

Kills come at random times, and before each single operation on a file. ALIGN_KILLS sets how many
come at random: `ALIGN_KILLS=200 python -m pytest -s tests/preferences/test_kill.py` tells where
they came.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from alignment.preferences.store import PreferenceStore

ROWS = 400
KILLS = int(os.environ.get("ALIGN_KILLS", "25"))
PROGRAM = """
# Imports once, then forks a child for every intake: a fresh interpreter each would take seconds.
import os
import signal
import sys
from pathlib import Path
import pandas  # pyarrow imports it when it first meets a numpy array
import pyarrow.parquet
from alignment.config.intake import IntakeConfig
from alignment.preferences.intake import ingest
from alignment.preferences.store import PreferenceStore

WATCHED = ("open", "os.", "shutil.", "tempfile.", "fcntl.")

def die_at(number):
    # Python announces every operation on a file before it is done.
    def hook(event, _arguments):
        nonlocal number
        if event.startswith(WATCHED):
            number -= 1
            if number == 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

print("ready", flush=True)
for line in sys.stdin:
    root, stop, *paths = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if child == 0:
        if int(stop):
            die_at(int(stop))
        for path in paths:
            ingest(PreferenceStore(Path(root)), [path], IntakeConfig())
        os._exit(0)
    print(child, flush=True)
    status = os.waitpid(child, 0)[1]
    print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status), flush=True)
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

    def run(
        self, store: Path, paths: list[Path], kill_after: float | None = None, stop: int = 0
    ) -> bool:
        """Ingest `paths` one after the other; says whether it was killed before it was done.

        Args:
            kill_after: seconds after which to kill -9.
            stop: kill before this operation on a file, counted from 1; 0: do not.
        """
        assert self._process.stdin is not None
        self._process.stdin.write("\t".join(map(str, [store, stop, *paths])) + "\n")
        self._process.stdin.flush()
        child = int(self._read())
        if kill_after is not None:
            time.sleep(kill_after)
            with contextlib.suppress(ProcessLookupError):  # it may be done already
                os.kill(child, signal.SIGKILL)
        ended = int(self._read())
        assert ended in (0, signal.SIGKILL), "an intake failed"
        return ended == signal.SIGKILL

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
            for row in range(ROWS):
                conversation = [{"role": "user", "content": f"question {number} {row} " * 20}]
                file.write(
                    json.dumps({"conversation": conversation, "chosen": "yes", "rejected": "no"})
                    + "\n"
                )
        paths.append(path)
    return paths


def check_whole(root: Path, digests: list[str]) -> int:
    """Every batch that is there is complete and the one it must be; returns how many."""
    store = PreferenceStore(root)
    batches = store.batches()
    for batch in batches:
        rows = store.training([batch.id]) + store.heldout([batch.id])
        assert len(rows) == len({row.id for row in rows}) == ROWS
    assert [batch.sequence for batch in batches] == list(range(1, len(batches) + 1))
    assert [batch.digest for batch in batches] == digests[: len(batches)]
    return len(batches)


def digests_of(root: Path) -> list[str]:
    found = [batch.digest for batch in PreferenceStore(root).batches()]
    assert len(set(found)) == 3
    return found


def test_kills_leave_no_half_batch_and_lose_or_double_no_row(
    intakes: Intakes, tmp_path: Path
) -> None:
    rng = random.Random(11)
    paths = deliveries(tmp_path)
    clean = tmp_path / "clean"
    began = time.monotonic()
    intakes.run(clean, paths)
    seconds = time.monotonic() - began
    digests = digests_of(clean)
    killed, tries, stores, root = 0, 0, 0, tmp_path / "killed-0"
    found = Counter[str]()
    while killed < KILLS:
        tries += 1
        assert tries <= 20 * KILLS, "hardly a kill comes in time"
        before = check_whole(root, digests)
        killed += intakes.run(root, paths, kill_after=rng.uniform(0, 0.8 * seconds))
        there = check_whole(root, digests)
        found[f"{before} batches before, {there} after"] += 1
        left = root / "incoming" / "batch"
        found["unfinished work left behind"] += left.is_dir()
        if there == 3:  # whole: begin another
            stores += 1
            root = tmp_path / f"killed-{stores}"
    print(f"\n{killed} kills in {tries} tries on {stores + 1} stores: {dict(found)}")
    # The same deliveries once more, on a store that was interrupted many times.
    assert not intakes.run(root, paths)
    assert check_whole(root, digests) == 3
    assert not (root / "incoming").exists()


def test_killed_before_each_operation_on_a_file(intakes: Intakes, tmp_path: Path) -> None:
    paths = deliveries(tmp_path)
    intakes.run(tmp_path / "clean", paths)
    digests = digests_of(tmp_path / "clean")
    root = tmp_path / "first"
    intakes.run(root, paths[:1])
    counts = []
    for stop in range(1, 1000):
        store = tmp_path / f"stop-{stop}"
        shutil.copytree(root, store)
        killed = intakes.run(store, paths[:2], stop=stop)
        counts.append(check_whole(store, digests))
        intakes.run(store, paths[:2])
        assert check_whole(store, digests) == 2
        assert not (store / "incoming").exists()
        shutil.rmtree(store)
        if not killed:
            break
    print(f"\n{len(counts) - 1} operations, the batch is there after {counts.count(1)}")
    assert len(counts) > 30
    assert counts == sorted(counts)
    assert set(counts) == {1, 2}


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
    (batch,) = PreferenceStore(tmp_path / "store").batches()
    assert check_whole(tmp_path / "store", [batch.digest]) == 1
