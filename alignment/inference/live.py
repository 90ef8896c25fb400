"""A vLLM server whose weights follow a policy in training.

Before each batch the policy's weights are written to a directory of their own, and the server loads
them: paused, so that no answer is drawn from both; with its prefix cache emptied, for keys of the
old weights would go on answering (log-probabilities were off by up to 4.2 nats); under a tag that
is read back. A new directory each time, because vLLM keeps old weights where a path is written
again. The server's log-probabilities still round otherwise than the trainer's, so PPO recomputes
them and corrects for the difference.
"""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import PreTrainedModel

from alignment.errors import StageError
from alignment.inference.canary import TOLERANCE
from alignment.inference.completions import Completions, NoAnswer
from alignment.inference.served import Asked, VLLMEngine
from alignment.inference.server_command import ServerPlan
from alignment.utils.http import HTTPClient, Refused, Unanswered
from alignment.utils.progress import Progress

_ALLOWED = 2
"""Times the canary's tolerance by which a batch may differ on average: it is drawn from a policy
that training has moved, where rounding weighs more."""


class LiveEngine(VLLMEngine):
    """See the module.

    Args:
        plan: of the server; the model in it is replaced by what is published.
        home: directory for the published weights, emptied at first.
    """

    def __init__(self, plan: ServerPlan, log: Path, asked: Asked, home: Path, progress: Progress):
        super().__init__(replace(plan, live=True), log, asked, None, lambda _proof: None)
        self._proven = True  # by each batch, see `check`
        self._home, self._progress = home, progress
        self._number = 0
        shutil.rmtree(home, ignore_errors=True)

    def publish(self, policy: PreTrainedModel) -> None:
        """Have the server answer by the weights that `policy` has now.

        Raises:
            StageError: the server refuses them, or says that it has others.
        """
        before = self._plan.model
        self._number += 1
        directory = self._home / f"{self._number:06d}"
        write_untied(policy, directory)
        self._asked.renderer.tokenizer.save_pretrained(directory)
        self._plan = replace(self._plan, model=directory)
        if self._server is not None:
            try:
                self._load(directory)
            except (NoAnswer, StageError):
                if self._server.healthy():
                    raise
                self._progress.say("the vLLM server ended; it starts again with the new weights")
                self.close()
        if before.parent == self._home:
            shutil.rmtree(before)

    def check(self, mean: float) -> None:
        """Check how far a batch's log-probabilities are from the trainer's: mean, nats a token.

        Raises:
            StageError: no rounding explains it; the server answered by other weights.
        """
        allowed = _ALLOWED * TOLERANCE[self._asked.dtype]
        if not mean <= allowed:
            raise StageError(
                f"the server's log-probabilities differ from the trainer's by {mean:.2g} a token "
                f"on average (at most {allowed:g} is rounding): it answers by other weights",
                where=str(self._log),
                remedy="see its log; inference.engine: transformers draws in this process",
            )

    def _connect(self, progress: Progress) -> Completions:
        fresh = self._client is None
        client = super()._connect(self._progress)
        if fresh:
            self._tag()
        return client

    def _load(self, directory: Path) -> None:
        self._ask("/pause?mode=wait", {})
        kwargs = {"weights_path": str(directory)}
        self._ask("/collective_rpc", {"method": "reload_weights", "kwargs": kwargs})
        emptied = self._ask("/reset_prefix_cache", {})
        if emptied.get("success") is not True:
            raise StageError("vLLM could not empty its prefix cache", where=str(self._log))
        self._tag()
        self._ask("/resume", {})

    def _tag(self) -> None:
        """Give the weights a name, and read it back."""
        name = f"{self._plan.name}#{self._number}"
        self._ask("/update_weight_version", {"new_version": name})
        found = self._ask("/weight_info").get("weight_version")
        if found != name:
            raise StageError(
                f"vLLM says that it has the weights {found}, and was given {name}",
                where=str(self._log),
            )

    def _ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        assert self._server is not None
        client = HTTPClient(
            self._server.url, timeout=600.0, key=self._server.key, pause=self._pause
        )
        try:
            return client.ask(path, dict, None if body is None else lambda _attempt: body)
        except (Refused, Unanswered) as error:
            raise NoAnswer(f"vLLM: {path}: {error}", where=str(self._log)) from error


def write_untied(policy: PreTrainedModel, directory: Path) -> None:
    """Write a checkpoint in which the output embedding is a tensor of its own.

    Where it is tied to the input embedding, vLLM 0.32 loads new input embeddings and goes on
    answering with the old output embedding.
    """
    directory.mkdir(parents=True)
    config = copy.deepcopy(policy.config)
    for part in (config, config.get_text_config()):
        part.tie_word_embeddings = False
    config.save_pretrained(directory)
    tensors, seen = {}, set()
    for name, tensor in policy.state_dict().items():
        shared = tensor.data_ptr() in seen
        seen.add(tensor.data_ptr())
        tensors[name] = tensor.clone() if shared else tensor.contiguous()
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
