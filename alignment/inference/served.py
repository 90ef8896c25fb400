"""Engines behind HTTP: vLLM servers that we start, or an endpoint that somebody else runs."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignment.errors import StageError
from alignment.inference.canary import Proof, Score, prove
from alignment.inference.completions import Completions, NoAnswer
from alignment.inference.drawn import Drawn
from alignment.inference.server_command import ServerPlan
from alignment.inference.server_process import NotStarted, ServerProcess
from alignment.inference.types import SILENT, Sample, SamplingSettings
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.load import Dtype
from alignment.utils.progress import Progress

_STARTS = 3
"""Servers in a row that end without an answer; then a request ends them, and not chance."""


@dataclass(frozen=True)
class Asked:
    """The policy that is asked for, and how its answers are read."""

    model: Path
    weights: str
    """Digest of its weights."""
    dtype: Dtype
    renderer: ChatRenderer
    ends: Collection[int]
    """Ids that end an answer."""
    context: int | None
    """Most tokens of a prompt and its answer."""
    score: Score
    """Its own opinion of answers."""


class ServedEngine(ABC):
    """An engine behind HTTP; the server proves itself before the first draw.

    Args:
        keep: directory for answers that a killed process leaves to the next (`Drawn`).
        on_proof: receives what the server showed.
    """

    name: str

    def __init__(self, asked: Asked, keep: Path | None, on_proof: Callable[[Proof], None]):
        self._asked = asked
        self._keep = keep
        self._on_proof = on_proof
        self._proven = False

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[int]],
        settings: SamplingSettings,
        progress: Progress = SILENT,
    ) -> list[list[Sample]]:
        """See `Engine`. Save what it returns before the next call (`Drawn`).

        Raises:
            StageError: the server cannot be started or reached, refuses, serves another model, or
                does not return token ids.
        """
        drawn = Drawn(self._keep, prompts, seeds, settings)
        progress.begin("sampling", len(drawn.requests), "answers")
        if len(drawn):
            progress.say(f"{len(drawn)} answers were drawn before this process began")
            progress.advance(len(drawn))
        while drawn.missing:
            self._draw(drawn, progress)
        return drawn.all()

    def close(self) -> None:
        """Free what the engine holds."""
        return

    @abstractmethod
    def _draw(self, drawn: Drawn, progress: Progress) -> None:
        """Draw what is missing, or a part of it."""

    def _prove(self, client: Completions, progress: Progress) -> None:
        if self._proven:
            return
        asked = self._asked
        proof = prove(
            client,
            asked.model,
            asked.renderer,
            asked.dtype,
            context=asked.context,
            engine=self.name,
            score=asked.score,
            weights=asked.weights,
        )
        progress.say(
            f"the server serves {asked.weights}: its log-probabilities agree with the checkpoint's "
            f"within {proof.mean_difference:.1g} a token"
        )
        self._on_proof(proof)
        self._proven = True


class EndpointEngine(ServedEngine):
    """A server that somebody else runs; its key is in $ALIGN_SERVER_KEY."""

    name = "endpoint"

    def __init__(
        self, url: str, asked: Asked, keep: Path | None, on_proof: Callable[[Proof], None]
    ):
        super().__init__(asked, keep, on_proof)
        self._url = url
        self._client: Completions | None = None

    def _draw(self, drawn: Drawn, progress: Progress) -> None:
        if self._client is None:
            # The key is not a setting, because settings end up in manifests.
            key = os.environ.get("ALIGN_SERVER_KEY", "")
            self._client = Completions(self._url, self._asked.renderer, self._asked.ends, key=key)
        self._prove(self._client, progress)
        drawn.draw(self._client, progress)


class VLLMEngine(ServedEngine):
    """A vLLM server that is started at the first draw, and again if it dies."""

    name = "vllm"

    def __init__(
        self,
        plan: ServerPlan,
        log: Path,
        asked: Asked,
        keep: Path | None,
        on_proof: Callable[[Proof], None],
    ):
        super().__init__(asked, keep, on_proof)
        self._plan, self._log = plan, log
        self._server: ServerProcess | None = None
        self._client: Completions | None = None
        self._in_vain = 0

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            self._server.stop()
        self._server = self._client = None

    def _draw(self, drawn: Drawn, progress: Progress) -> None:
        before = len(drawn)
        try:
            client = self._connect(progress)
            self._prove(client, progress)
            drawn.draw(client, progress)
        except (NoAnswer, NotStarted) as lost:
            error: StageError = lost
            if self._server is not None:
                if self._server.healthy():
                    raise
                error = self._server.error("the vLLM server ended")
            self.close()
            self._in_vain = 0 if len(drawn) > before else self._in_vain + 1
            if self._in_vain >= _STARTS:
                raise error from None
            progress.say(
                f"the vLLM server ended; starting it again for {len(drawn.missing)} of "
                f"{len(drawn.requests)} answers"
            )

    def _connect(self, progress: Progress) -> Completions:
        if self._client is None:
            self._server = ServerProcess(self._plan, self._log, progress)
            self._client = Completions(
                self._server.url,
                self._asked.renderer,
                self._asked.ends,
                model=self._plan.name,
                key=self._server.key,
                pause=self._pause,
            )
        return self._client

    def _pause(self, seconds: float) -> None:
        """Sleep between two attempts at a request, unless the server is gone."""
        until = time.monotonic() + seconds
        while self._server is not None and self._server.running:
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.1))
        raise NoAnswer("the vLLM server ended", where=str(self._log))
