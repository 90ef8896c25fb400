"""Answers by vLLM, in this process or behind an OpenAI-compatible server.

Both take a seed for each answer, so a sample depends on its seed alone as far as vLLM promises
that: for one version of vLLM, one model and one machine (vLLM's batches change the last bits of
its logits; its batch-invariant mode, `VLLM_BATCH_INVARIANT=1`, makes it exact). What comes back is
tokens, not text alone, so that training sees what was drawn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from alignment.errors import ConfigError, StageError
from alignment.inference.stop_text import cut_at_stop
from alignment.inference.types import SILENT, Sample, SamplingSettings
from alignment.models.chat_renderer import ChatRenderer
from alignment.utils.http import HTTPClient, Refused, Unanswered, is_http
from alignment.utils.progress import Progress

T = TypeVar("T")

_SEED_BITS = 31  # servers read the seed as a signed 32- or 64-bit integer
_REMEDY = (
    "start it with: vllm serve DIR --return-tokens-as-token-ids --logprobs-mode processed_logprobs"
)


class VLLMEngine:
    """vLLM's offline engine; implements `settings.Engine`. Needs the extra `vllm`.

    Raises:
        ConfigError: vLLM is not installed.
    """

    def __init__(self, model: Path, renderer: ChatRenderer, dtype: str = "float32"):
        try:
            from vllm import LLM
        except ImportError as error:
            raise ConfigError(
                "sample.engine is vllm, but vLLM is not installed",
                remedy="pip install 'align-rlhf[vllm]', or set sample.engine: transformers",
            ) from error
        self._renderer = renderer
        self._llm: Any = LLM(
            model=str(model),
            dtype=dtype,
            enable_prefix_caching=True,
            # The log-probabilities that training needs: after the temperature.
            logprobs_mode="processed_logprobs",
            max_logprobs=1,
        )

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[int]],
        settings: SamplingSettings,
        progress: Progress = SILENT,
    ) -> list[list[Sample]]:
        """See `settings.Engine`."""
        from vllm import SamplingParams, TokensPrompt

        asked = [(row, seed) for row, group in enumerate(seeds) for seed in group]
        progress.begin("sampling", len(asked), "answers")
        outputs = self._llm.generate(
            [TokensPrompt(prompt_token_ids=list(prompts[row])) for row, _ in asked],
            [
                SamplingParams(
                    max_tokens=settings.max_new_tokens,
                    temperature=settings.temperature,
                    top_p=settings.top_p,
                    top_k=settings.top_k or -1,
                    stop=list(settings.stop) or None,
                    seed=short_seed(seed),
                    logprobs=0,
                )
                for _, seed in asked
            ],
            use_tqdm=False,
        )
        found: list[list[Sample]] = [[] for _ in prompts]
        for (row, _), output in zip(asked, outputs, strict=True):
            one = output.outputs[0]
            ids = list(one.token_ids)
            logprobs = [
                float(step[token].logprob) for step, token in zip(one.logprobs, ids, strict=True)
            ]
            finished = one.finish_reason == "stop"
            found[row].append(as_sample(ids, logprobs, finished, self._renderer, settings))
        progress.advance(len(asked))
        return found


class ServerEngine:
    """An OpenAI-compatible completions server; implements `settings.Engine`.

    Args:
        url: `http://host:port` or `…/v1`.
        connections: requests in flight; the server batches them.
        timeout: seconds without a byte after which a request counts as lost.
        key: sent as a bearer token if given, never logged.
        pause: sleeps between retries; tests pass their own.

    Raises:
        ConfigError: no HTTP address, or the server offers other than one model.
        StageError: the server cannot be reached.
    """

    def __init__(
        self,
        url: str,
        renderer: ChatRenderer,
        *,
        model: str | None = None,
        connections: int = 64,
        timeout: float = 600.0,
        key: str = "",
        pause: Callable[[float], None] = time.sleep,
    ):
        if not is_http(url):
            raise ConfigError(f"{url!r} is no http address", where="sample.url")
        base = url.rstrip("/")
        self._base = base if base.endswith("/v1") else f"{base}/v1"
        self._renderer = renderer
        self._connections = connections
        self._client = HTTPClient(self._base, timeout=timeout, key=key, pause=pause)
        self._model = model or self._only_model()

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[int]],
        settings: SamplingSettings,
        progress: Progress = SILENT,
    ) -> list[list[Sample]]:
        """See `settings.Engine`.

        Raises:
            StageError: the server cannot be reached or refuses, or does not give token ids.
        """
        asked = [(row, seed) for row, group in enumerate(seeds) for seed in group]
        progress.begin("sampling", len(asked), "answers")
        found: list[list[Sample]] = [[] for _ in prompts]
        with ThreadPoolExecutor(self._connections) as pool:
            answers = pool.map(lambda one: self._one(prompts[one[0]], one[1], settings), asked)
            for (row, _), sample in zip(asked, answers, strict=True):
                found[row].append(sample)
                progress.advance(1)
        return found

    def _one(self, prompt: Sequence[int], seed: int, settings: SamplingSettings) -> Sample:
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": list(prompt),
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "seed": short_seed(seed),
            "logprobs": 0,
            "return_tokens_as_token_ids": True,
        }
        if settings.top_k:
            body["top_k"] = settings.top_k
        if settings.stop:
            body["stop"] = list(settings.stop)
        return self._ask("/completions", lambda answer: self._read(answer, settings), body)

    def _read(self, answer: dict[str, Any], settings: SamplingSettings) -> Sample:
        try:
            choice = answer["choices"][0]
            logprobs = [float(value) for value in choice["logprobs"]["token_logprobs"]]
            ids = [_token_id(token) for token in choice["logprobs"]["tokens"]]
            finished = choice["finish_reason"] == "stop"
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise StageError(  # asking again would bring the same
                "the server's answer has no token ids and log-probabilities",
                where=f"{self._base}/completions",
                remedy=_REMEDY,
            ) from error
        return as_sample(ids, logprobs, finished, self._renderer, settings)

    def _only_model(self) -> str:
        models = self._ask("/models", lambda answer: [str(one["id"]) for one in answer["data"]])
        if len(models) != 1:
            raise ConfigError(
                f"the server offers {len(models)} models: {', '.join(models) or 'none'}",
                where=self._base,
                remedy="serve exactly the policy of the preceding version",
            )
        return models[0]

    def _ask(
        self,
        path: str,
        read: Callable[[dict[str, Any]], T],
        body: dict[str, Any] | None = None,
    ) -> T:
        try:
            return self._client.ask(path, read, None if body is None else lambda _attempt: body)
        except Refused as error:
            raise StageError(f"the server refused: {error}", where=self._base + path) from error
        except Unanswered as error:
            raise StageError(
                f"no answer from the server: {error}", where=self._base + path, remedy=_REMEDY
            ) from error


def short_seed(seed: int) -> int:
    """A seed in the range that every server accepts."""
    return seed & ((1 << _SEED_BITS) - 1)


def as_sample(
    ids: list[int],
    logprobs: list[float],
    finished: bool,
    renderer: ChatRenderer,
    settings: SamplingSettings,
) -> Sample:
    """Ids as the engine gave them; an end that the engine swallowed is not made up."""
    if any(math.isnan(value) for value in logprobs):
        raise StageError("the engine gave log-probabilities that are not numbers")
    text = cut_at_stop(renderer.text(ids), settings.stop)
    return Sample(ids, logprobs, finished, text)


def _token_id(token: str) -> int:
    name, _, number = token.partition(":")
    if name != "token_id":
        raise ValueError(f"{token!r} is no token id")
    return int(number)
