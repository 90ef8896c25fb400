"""vLLM servers that take new weights while they run.

A full checkpoint is loaded in place of the old one: paused, so that no answer is drawn from both;
with the prefix cache emptied, for keys of the old weights would go on answering (log-probabilities
were off by up to 4.2 nats); under a tag that is read back.

A policy that is an adapter goes to the server as an adapter, under a new name each time, and not
folded into its base: bfloat16 would round a good part of the update away, and it is a hundredth of
the bytes. The requests name the adapter, so no other weights can answer them, and vLLM's prefix
cache keeps adapters apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any

from alignment.errors import StageError
from alignment.inference.completions import Completions, NoAnswer
from alignment.inference.served import Asked, VLLMEngine
from alignment.inference.server_command import ServerPlan
from alignment.utils.http import HTTPClient, Refused, Unanswered
from alignment.utils.progress import Progress


class LiveServer(VLLMEngine, ABC):
    """See the module; each batch proves its weights (`LiveEngine.check`)."""

    def __init__(self, plan: ServerPlan, log: Path, asked: Asked, progress: Progress):
        super().__init__(plan, log, asked, None, lambda _proof: None)
        self._proven = True
        self._progress = progress
        self._directory: Path | None = None
        self._number = 0

    def load(self, directory: Path, number: int) -> None:
        """Answer by the weights in `directory`, the `number`th, from now on.

        Raises:
            StageError: the server refuses them, or says that it has others.
        """
        self._directory, self._number = directory, number
        if self._client is None:
            return  # it will start with them
        assert self._server is not None
        try:
            self._exchange(directory)
        except (NoAnswer, StageError):
            if self._server.healthy():
                raise
            self._progress.say("the vLLM server ended; it starts again with the new weights")
            self.close()

    @property
    def _tag(self) -> str:
        """Names the present weights."""
        return f"{self._plan.name}#{self._number}"

    def _connect(self, progress: Progress) -> Completions:
        assert self._directory is not None
        if self._client is not None:
            return self._client
        self._before_start(self._directory)
        client = super()._connect(self._progress)
        self._after_start(self._directory)
        return client

    @abstractmethod
    def _exchange(self, directory: Path) -> None:
        """Have the running server take new weights."""

    @abstractmethod
    def _before_start(self, directory: Path) -> None: ...

    @abstractmethod
    def _after_start(self, directory: Path) -> None: ...

    def _ask(
        self, path: str, body: dict[str, Any] | None = None, *, plain: bool = False
    ) -> dict[str, Any]:
        assert self._server is not None
        client = HTTPClient(
            self._server.url, timeout=600.0, key=self._server.key, pause=self._pause
        )
        asked = None if body is None else lambda _attempt: body
        try:
            return client.ask(path, dict, asked, plain=plain)
        except (Refused, Unanswered) as error:
            raise NoAnswer(f"vLLM: {path}: {error}", where=str(self._log)) from error

    def _check_tag(self, found: object) -> None:
        if found != self._tag:
            raise StageError(
                f"vLLM says that it has the weights {found}, and was given {self._tag}",
                where=str(self._log),
            )


class FullWeights(LiveServer):
    """A server of full checkpoints."""

    def _before_start(self, directory: Path) -> None:
        self._plan = replace(self._plan, model=directory)

    def _after_start(self, directory: Path) -> None:
        self._name_weights()

    def _exchange(self, directory: Path) -> None:
        self._ask("/pause?mode=wait", {})
        kwargs = {"weights_path": str(directory)}
        self._ask("/collective_rpc", {"method": "reload_weights", "kwargs": kwargs})
        emptied = self._ask("/reset_prefix_cache", {})
        if emptied.get("success") is not True:
            raise StageError("vLLM could not empty its prefix cache", where=str(self._log))
        self._name_weights()
        self._ask("/resume", {})

    def _name_weights(self) -> None:
        """Give the weights a name, and read it back."""
        self._ask("/update_weight_version", {"new_version": self._tag})
        self._check_tag(self._ask("/weight_info").get("weight_version"))


class AdapterWeights(LiveServer):
    """A server of a base, over which it loads adapters."""

    def _before_start(self, directory: Path) -> None:
        return

    def _after_start(self, directory: Path) -> None:
        self._exchange(directory)

    def _exchange(self, directory: Path) -> None:
        assert self._client is not None
        before, self._client.model = self._client.model, self._tag
        described = {"lora_name": self._tag, "lora_path": str(directory)}
        self._ask("/v1/load_lora_adapter", described, plain=True)
        adapters = {m.get("root"): m["id"] for m in self._ask("/v1/models")["data"]}
        self._check_tag(adapters.get(str(directory)))
        if before != self._plan.name:
            self._ask("/v1/unload_lora_adapter", {"lora_name": before}, plain=True)
