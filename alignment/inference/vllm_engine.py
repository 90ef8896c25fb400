"""Answers from vLLM, in this process or behind an OpenAI-compatible server.

Both take a seed per answer. Within one version of vLLM, one model and one machine, an answer
depends on its prompt and seed, except that vLLM's batches change the last bits of its logits; its
batch-invariant mode (`VLLM_BATCH_INVARIANT=1`) removes that. Answers come back as tokens, so that
training sees exactly what was drawn.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from alignment.errors import ConfigError, StageError
from alignment.inference.types import SILENT, Sample, SamplingSettings
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.load import Dtype, weight_bytes
from alignment.utils.http import HTTPClient, Refused, Unanswered, is_http
from alignment.utils.progress import Progress

T = TypeVar("T")

_USUAL_SHARE = 0.9  # vLLM's own default
_CONTEXT = 0.02  # of the GPU, for what CUDA itself takes
_LEAST = 1.2  # times its weights: a model needs some cache too
_SEED_BITS = 31  # servers read the seed as a signed 32- or 64-bit integer
_REMEDY = (
    "start it with: vllm serve DIR --return-tokens-as-token-ids "
    "--logprobs-mode processed_logprobs --generation-config vllm"
)


class VLLMEngine:
    """vLLM's offline engine. Needs the extra `vllm`.

    Args:
        beside: bytes of the GPU's memory that must stay free for other models.

    Raises:
        ConfigError: vLLM is not installed, or the GPU is too small for the policy and `beside`.
    """

    def __init__(
        self, model: Path, renderer: ChatRenderer, dtype: Dtype = "float32", beside: int = 0
    ):
        try:
            from vllm import LLM
        except ImportError as error:
            raise ConfigError(
                "sample.engine is vllm, but vLLM is not installed",
                remedy="in align's folder pip install -e '.[vllm]', or sample.engine: transformers",
            ) from error
        self._renderer = renderer
        self._llm: Any = LLM(
            model=str(model),
            dtype=dtype,
            enable_prefix_caching=True,
            # Training needs log-probabilities at the temperature.
            logprobs_mode="processed_logprobs",
            max_logprobs=1,
            **_memory(weight_bytes(model, dtype), beside),
        )

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[int]],
        settings: SamplingSettings,
        progress: Progress = SILENT,
    ) -> list[list[Sample]]:
        """See `Engine`."""
        from vllm import SamplingParams, TokensPrompt

        requests = [(row, seed) for row, group in enumerate(seeds) for seed in group]
        progress.begin("sampling", len(requests), "answers")
        outputs = self._llm.generate(
            [TokensPrompt(prompt_token_ids=list(prompts[row])) for row, _ in requests],
            [
                SamplingParams(
                    max_tokens=settings.max_new_tokens,
                    temperature=settings.temperature,
                    top_p=settings.top_p,
                    top_k=settings.top_k or -1,
                    stop=list(settings.stop) or None,
                    stop_token_ids=_turn_end(self._renderer),
                    seed=short_seed(seed),
                    logprobs=0,
                )
                for _, seed in requests
            ],
            use_tqdm=False,
        )
        samples: list[list[Sample]] = [[] for _ in prompts]
        for (row, _), output in zip(requests, outputs, strict=True):
            completion = output.outputs[0]
            ids = list(completion.token_ids)
            logprobs = [
                float(step[token].logprob)
                for step, token in zip(completion.logprobs, ids, strict=True)
            ]
            finished = completion.finish_reason == "stop"
            samples[row].append(as_sample(ids, logprobs, finished, self._renderer, settings))
        progress.advance(len(requests))
        return samples


class ServerEngine:
    """An OpenAI-compatible completions server.

    Args:
        url: `http://host:port` or `…/v1`.
        model: the model's name on the server; None takes the only one.
        connections: requests in flight; the server batches them.
        timeout: seconds without a byte after which a request counts as lost.
        key: sent as a bearer token if given; never logged.
        pause: sleeps between retries; tests pass their own.

    Raises:
        ConfigError: `url` is not an HTTP address, or the server does not offer exactly one model.
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
            raise ConfigError(f"{url!r} is not an HTTP address", where="sample.url")
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
        """See `Engine`.

        Raises:
            StageError: the server cannot be reached, refuses, or does not return token ids.
        """
        requests = [(row, seed) for row, group in enumerate(seeds) for seed in group]
        progress.begin("sampling", len(requests), "answers")
        samples: list[list[Sample]] = [[] for _ in prompts]
        with ThreadPoolExecutor(self._connections) as pool:
            answers = pool.map(
                lambda request: self._one(prompts[request[0]], request[1], settings), requests
            )
            for (row, _), sample in zip(requests, answers, strict=True):
                samples[row].append(sample)
                progress.advance(1)
        return samples

    def _one(self, prompt: Sequence[int], seed: int, settings: SamplingSettings) -> Sample:
        body: dict[str, Any] = {
            "model": self._model,
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
            "return_tokens_as_token_ids": True,
        }
        if settings.stop:
            body["stop"] = list(settings.stop)
        if (ends := _turn_end(self._renderer)) is not None:
            body["stop_token_ids"] = ends
        return self._ask("/completions", lambda answer: self._read(answer, settings), body)

    def _read(self, answer: dict[str, Any], settings: SamplingSettings) -> Sample:
        try:
            choice = answer["choices"][0]
            logprobs = [float(value) for value in choice["logprobs"]["token_logprobs"]]
            ids = [_token_id(token) for token in choice["logprobs"]["tokens"]]
            finished = choice["finish_reason"] == "stop"
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise StageError(  # another attempt would give the same
                "the server's answer has no token ids and log-probabilities",
                where=f"{self._base}/completions",
                remedy=_REMEDY,
            ) from error
        return as_sample(ids, logprobs, finished, self._renderer, settings)

    def _only_model(self) -> str:
        models = self._ask("/models", lambda answer: [str(model["id"]) for model in answer["data"]])
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


def _memory(weights: int, beside: int) -> dict[str, float]:
    """The share of the GPU that vLLM takes at once, for weights and cache, and keeps."""
    import torch

    if not torch.cuda.is_available():
        return {}
    free, total = torch.cuda.mem_get_info()
    share = min(_USUAL_SHARE, (free - beside) / total - _CONTEXT)
    if share * total < weights * _LEAST:
        gib = 2**30
        raise ConfigError(
            f"the GPU has {free / gib:.1f} GiB free; the policy's weights take {weights / gib:.1f} "
            f"and the reward models beside it {beside / gib:.1f}",
            where="sample.engine",
            remedy="set sample.temperature to a number, so that sampling needs no reward models, "
            "or sample.engine: transformers",
        )
    return {"gpu_memory_utilization": math.floor(share * 1000) / 1000}


def _turn_end(renderer: ChatRenderer) -> list[int] | None:
    """The id that ends answers, where it is another than EOS, at which a server stops anyway."""
    return None if renderer.end == renderer.eos else [renderer.end]


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
    """A sample with the engine's ids; an EOS that the engine left out is not added.

    Raises:
        StageError: a log-probability is not a number.
    """
    if any(math.isnan(value) for value in logprobs):
        raise StageError("the engine returned log-probabilities that are not numbers")
    return Sample(ids, logprobs, finished, settings.cut(renderer.text(ids)))


def _token_id(token: str) -> int:
    name, _, number = token.partition(":")
    if name != "token_id":
        raise ValueError(f"{token!r} is not a token id")
    return int(number)
