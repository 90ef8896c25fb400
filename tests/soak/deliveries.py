"""What people might put into an inbox: sound files, the same twice, broken ones, slow copies."""

from __future__ import annotations

import gzip
import json
import random
import threading
import time
from pathlib import Path
from typing import Any

from alignment.config.program import ProgramConfig
from alignment.pipeline.approval import Decisions
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.plan import build_plan
from alignment.world.annotators import label_rows


def collected(program: ProgramConfig, version: str) -> list[dict[str, Any]] | None:
    """The pairs that a version collected, or None if it has not yet."""
    ledger = Ledger(program.workspace)
    manifest = Fingerprints(program, ledger, build_plan(program, Decisions.load(program))).manifest(
        version, "collect"
    )
    if manifest is None:
        return None
    directory = ledger.committed_dir(version, "collect", manifest.fingerprint)
    lines = (directory / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def judged(program: ProgramConfig, pairs: list[dict[str, Any]]) -> list[str]:
    """The simulated annotators' verdicts, one JSON line each."""
    rows = label_rows(pairs, program.world.annotators, program.seed)
    return [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]


class Deliverer:
    """Puts files into the inbox at random times, each in a thread of its own.

    Attributes:
        sound: file name → content of every file that must become a batch.
    """

    def __init__(self, inbox: Path, rng: random.Random, span: float):
        self.inbox = inbox
        self.sound: dict[str, bytes] = {}
        self._rng = rng
        self._span = span
        self._threads: list[threading.Thread] = []

    def deliver(self, version: str, lines: list[str]) -> None:
        """The verdicts on what `version` collected, in two files, with some rubbish between."""
        half = len(lines) // 2
        for number, part in enumerate((lines[:half], lines[half:])):
            data = "".join(part).encode()
            name = f"{version}-{number}.jsonl"
            if self._rng.random() < 0.4:
                data, name = gzip.compress(data, mtime=0), f"{name}.gz"
            self.sound[name] = data
            self._later(name, data)
            if self._rng.random() < 0.4:
                self._later(f"again-{name}", data, at_least=self._span)
        if self._rng.random() < 0.6:
            whole = gzip.compress("".join(lines).encode(), mtime=0)
            self._later(f"broken-{version}.jsonl.gz", whole[: len(whole) // 2])
        if self._rng.random() < 0.6:
            self._later(f"rubbish-{version}.jsonl", b'{"what": "is this"}\n' * 30)
        if self._rng.random() < 0.5:
            self._later(f"half-{version}.jsonl.part", data[:200])

    def wait(self) -> None:
        """Until everything is delivered."""
        for thread in self._threads:
            thread.join()

    def _later(self, name: str, data: bytes, at_least: float = 0.0) -> None:
        delay = at_least + self._rng.random() * self._span
        slow = self._rng.random() < 0.5
        thread = threading.Thread(target=self._put, args=(name, data, delay, slow), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _put(self, name: str, data: bytes, delay: float, slow: bool) -> None:
        time.sleep(delay)
        with (self.inbox / name).open("wb") as file:
            for start in range(0, len(data), max(1, len(data) // 4)):
                file.write(data[start : start + max(1, len(data) // 4)])
                file.flush()
                if slow:
                    time.sleep(1.5)  # longer than the settling time: half copies must be seen
