"""Answers of a policy in training, drawn by vLLM servers whose weights follow it.

Every machine has a server, which its first process owns; it draws that machine's part of a batch
while the others wait. Before each batch all processes write the policy's weights together, each
tensor once, and every server loads them (`live_server`): from a new directory each time, because
vLLM keeps old weights where a path is written again. A sharded policy stays in shards. The server's
log-probabilities still round otherwise than the trainer's, so PPO recomputes them and corrects for
the difference.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from alignment.errors import StageError
from alignment.inference.canary import TOLERANCE
from alignment.inference.live_server import LiveServer
from alignment.inference.types import SILENT, Sample, SamplingSettings
from alignment.models.load import Dtype
from alignment.utils import distributed
from alignment.utils.progress import Progress

_ALLOWED = 2
"""Times the canary's tolerance by which a batch may differ on average: it is drawn from a policy
that training has moved, where rounding weighs more."""

Write = Callable[[Path], None]
"""Writes the policy's weights to a new directory. All processes call it; the first writes."""


class LiveEngine:
    """All processes of a stage make one, and call the same methods in the same order.

    Args:
        server: of this machine; None in a process that does not own it.
        home: directory for the published weights, which all processes see; emptied at first.
        tokenizer: goes beside the weights.
        dtype: what trainer and servers compute in.
        log: of this machine's server, for errors.
    """

    def __init__(
        self,
        server: LiveServer | None,
        home: Path,
        tokenizer: PreTrainedTokenizerBase,
        dtype: Dtype,
        log: Path,
    ):
        self._server = server
        self._home, self._tokenizer = home, tokenizer
        self._dtype: Dtype = dtype
        self._log = log
        self._owners = distributed.firsts_of_machines()
        self._number = 0
        if distributed.is_first():
            shutil.rmtree(home, ignore_errors=True)

    def publish(self, write: Write) -> None:
        """Have all servers answer by the weights that `write` writes.

        Raises:
            StageError: a server refuses them, or says that it has others.
        """
        before = self._directory()
        self._number += 1
        write(self._directory())
        if distributed.is_first():
            self._tokenizer.save_pretrained(self._directory())
        distributed.meet()  # all of it is there
        if self._server is not None:
            self._server.load(self._directory(), self._number)
        distributed.meet()  # nobody reads the older ones any more
        if distributed.is_first() and before.is_dir():
            shutil.rmtree(before)

    def _directory(self) -> Path:
        return self._home / f"{self._number:06d}"

    def share(self, count: int) -> range:
        """What of `count` prompts this process has drawn: its machine's part, or nothing."""
        if self._server is None:
            return range(0)
        return distributed.share_of(
            count, self._owners.index(distributed.rank()), len(self._owners)
        )

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[int]],
        settings: SamplingSettings,
        progress: Progress = SILENT,
    ) -> list[list[Sample]]:
        """See `Engine`; only for a process's `share`."""
        if self._server is None or not prompts:
            return []
        return self._server.sample(prompts, seeds, settings, progress)

    def check(self, mean: float) -> None:
        """Check how far a batch's log-probabilities are from the trainer's: mean, nats a token.

        Raises:
            StageError: no rounding explains it; the server answered by other weights.
        """
        allowed = _ALLOWED * TOLERANCE[self._dtype]
        if not mean <= allowed:
            raise StageError(
                f"the server's log-probabilities differ from the trainer's by {mean:.2g} a token "
                f"on average (at most {allowed:g} is rounding): it answers by other weights",
                where=str(self._log),
                remedy="see its log; inference.engine: transformers draws in this process",
            )

    def close(self) -> None:
        """End this machine's server."""
        if self._server is not None:
            self._server.close()
