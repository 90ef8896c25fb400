"""A client of OpenAI's completions, in tokens: one request for each answer.

Within one version of vLLM, one model and one machine an answer depends on its prompt and seed,
except that vLLM's batches change the last bits of its logits; its batch-invariant mode
(`VLLM_BATCH_INVARIANT=1`, on some GPUs) removes that. Answers come back as tokens, so that training
sees exactly what was drawn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from alignment.errors import ConfigError, StageError
from alignment.inference.types import Sample, SamplingSettings
from alignment.models.chat_renderer import ChatRenderer
from alignment.utils.http import HTTPClient, Refused, Unanswered, is_http

T = TypeVar("T")

_SEED_BITS = 31  # servers read the seed as a signed 32- or 64-bit integer
_TIMEOUT = 600.0
SERVE = (
    "vllm serve {model} --dtype {dtype} --generation-config vllm "
    "--logprobs-mode processed_logprobs --return-tokens-as-token-ids"
)
"""How a person starts a server that gives what is needed."""


class NoAnswer(StageError):
    """A server did not answer, however often it was asked."""


class Completions:
    """One model of one server; several threads may use it.

    Args:
        url: `http://host:port` or `…/v1`.
        ends: ids that end an answer.
        model: the model's name on the server; None takes the only one.
        key: sent as a bearer token if given; never logged.
        pause: sleeps between retries; it may raise, which ends the retries.

    Attributes:
        model: the model's name on the server.

    Raises:
        ConfigError: `url` is not an HTTP address, or the server does not offer exactly one model.
        StageError: the server refuses; NoAnswer: it cannot be reached.
    """

    def __init__(
        self,
        url: str,
        renderer: ChatRenderer,
        ends: Collection[int],
        *,
        model: str | None = None,
        key: str = "",
        timeout: float = _TIMEOUT,
        pause: Callable[[float], None] = time.sleep,
    ):
        if not is_http(url):
            raise ConfigError(f"{url!r} is not an HTTP address", where="inference.endpoint.url")
        base = url.rstrip("/")
        self.url = base if base.endswith("/v1") else f"{base}/v1"
        self._renderer = renderer
        self._ends = sorted(ends)
        self._client = HTTPClient(self.url, timeout=timeout, key=key, pause=pause)
        self.model = model or self._only_model()

    def draw(self, prompt: Sequence[int], seed: int, settings: SamplingSettings) -> Sample:
        """One answer to a prompt of token ids.

        Raises:
            StageError: the server refuses, or does not return token ids and log-probabilities;
                NoAnswer: it cannot be reached.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "prompt": list(prompt),
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            # Sent even where they are off: what a request leaves out, the server takes from the
            # model's generation_config.json (Qwen's has a repetition penalty).
            "top_k": settings.top_k or -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": short_seed(seed),
            "logprobs": 0,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            # An answer ends where our own loop would end it.
            "ignore_eos": True,
            "stop_token_ids": self._ends,
        }
        if settings.stop:
            body["stop"] = list(settings.stop)
        return self._ask("/completions", lambda answer: self._read(answer, prompt, settings), body)

    def _read(
        self, answer: dict[str, Any], prompt: Sequence[int], settings: SamplingSettings
    ) -> Sample:
        try:
            choice = answer["choices"][0]
            logprobs = [float(value) for value in choice["logprobs"]["token_logprobs"]]
            ids = choice.get("token_ids")
            if ids is None:
                ids = [_token_id(token) for token in choice["logprobs"]["tokens"]]
            seen = choice.get("prompt_token_ids")
            finished = choice["finish_reason"] == "stop"
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise StageError(  # another attempt would give the same
                "the server's answer has no token ids and log-probabilities",
                where=f"{self.url}/completions",
                remedy="start it with: " + SERVE.format(model="DIR", dtype="FORMAT"),
            ) from error
        if seen is not None and list(seen) != list(prompt):
            raise StageError(
                "the server answered another prompt than the one it was sent",
                where=f"{self.url}/completions",
                remedy="it may cut long prompts: start it with a larger --max-model-len",
            )
        if len(ids) != len(logprobs) or any(math.isnan(value) for value in logprobs):
            raise StageError(
                "the server returned log-probabilities that are not one number a token",
                where=f"{self.url}/completions",
            )
        visible = ids[:-1] if ids and ids[-1] in self._ends else ids
        return Sample(list(ids), logprobs, finished, settings.cut(self._renderer.text(visible)))

    def _only_model(self) -> str:
        models = self._ask("/models", lambda answer: [str(model["id"]) for model in answer["data"]])
        if len(models) != 1:
            raise ConfigError(
                f"the server offers {len(models)} models: {', '.join(models) or 'none'}",
                where=self.url,
                remedy="serve exactly the policy that is asked for",
            )
        return models[0]

    def _ask(
        self, path: str, read: Callable[[dict[str, Any]], T], body: dict[str, Any] | None = None
    ) -> T:
        try:
            return self._client.ask(path, read, None if body is None else lambda _attempt: body)
        except Refused as error:
            raise StageError(f"the server refused: {error}", where=self.url + path) from error
        except Unanswered as error:
            raise NoAnswer(
                f"no answer from the server: {error}",
                where=self.url + path,
                remedy="start it with: " + SERVE.format(model="DIR", dtype="FORMAT"),
            ) from error


def short_seed(seed: int) -> int:
    """A seed in the range that every server accepts."""
    return seed & ((1 << _SEED_BITS) - 1)


def _token_id(token: str) -> int:
    name, _, number = token.partition(":")
    if name != "token_id":
        raise ValueError(f"{token!r} is not a token id")
    return int(number)
