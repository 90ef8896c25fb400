"""Draws many answers from a server at once, and keeps each as it comes.

What was drawn is on disk before it counts, so neither a server that dies nor a killed process makes
us draw it again: the same call asks for what is missing. The caller saves what one call returned
before it makes the next, for a new call removes the answers of the one before.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from alignment.inference.completions import Completions
from alignment.inference.types import Sample, SamplingSettings
from alignment.utils.files import digest_json
from alignment.utils.progress import Progress

CONNECTIONS = 128
"""Requests in flight; the server batches them."""


class Drawn:
    """The answers of one call: request → answer, in memory and in a file of JSON lines.

    Args:
        directory: for the file, which a killed process leaves to the next; None keeps none.
        prompts, seeds, settings: the call.
    """

    def __init__(
        self,
        directory: Path | None,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[int]],
        settings: SamplingSettings,
    ):
        self.requests = [
            (row, place, seed)
            for row, group in enumerate(seeds)
            for place, seed in enumerate(group)
        ]
        self._prompts, self._settings = prompts, settings
        self._found: dict[tuple[int, int], Sample] = {}
        self._lock = threading.Lock()
        self._path: Path | None = None
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            said = {**asdict(settings), "stop": list(settings.stop)}
            call = digest_json([[list(prompt) for prompt in prompts], list(map(list, seeds)), said])
            self._path = directory / f"{call[:16]}.jsonl"
            for other in directory.glob("*.jsonl"):
                if other != self._path:
                    other.unlink()
            self._recall(self._path)

    def _recall(self, path: Path) -> None:
        if not path.is_file():
            return
        whole = path.read_bytes()
        end = whole.rfind(b"\n") + 1
        for line in whole[:end].splitlines():
            row, place, ids, logprobs, finished, text = json.loads(line)
            self._found[row, place] = Sample(ids, logprobs, finished, text)
        if end < len(whole):  # the process died while it wrote
            os.truncate(path, end)

    def __len__(self) -> int:
        return len(self._found)

    @property
    def missing(self) -> list[tuple[int, int, int]]:
        """Requests (prompt, place, seed) without an answer."""
        return [request for request in self.requests if request[:2] not in self._found]

    def add(self, row: int, place: int, sample: Sample) -> None:
        """Keep an answer."""
        with self._lock:
            if self._path is not None:
                values = [row, place, sample.token_ids, sample.logprobs, sample.finished]
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([*values, sample.text]) + "\n")
            self._found[row, place] = sample

    def all(self) -> list[list[Sample]]:
        """Prompt by prompt the answers, which must all be there."""
        samples: list[list[Sample]] = [[] for _ in self._prompts]
        for row, place, _ in self.requests:
            samples[row].append(self._found[row, place])
        return samples

    def draw(self, client: Completions, progress: Progress) -> None:
        """Ask for everything that is missing; on the first failure the rest is left.

        Raises:
            StageError: as `Completions.draw`; what came before is kept.
        """

        def one(row: int, place: int, seed: int) -> int:
            sample = client.draw(self._prompts[row], seed, self._settings)
            self.add(row, place, sample)
            return len(sample.token_ids)

        tokens, started = 0, time.monotonic()
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            asked = [pool.submit(one, *request) for request in self.missing]
            try:
                for done in as_completed(asked):
                    tokens += done.result()
                    spent = max(time.monotonic() - started, 1e-9)
                    progress.advance(1, tokens_per_s=tokens / spent)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
