"""Answers from our own loop over a transformers model, on CPU or GPU.

One prefill serves all K samples of a prompt, the cache grows in place, finished sequences leave
the batch, and logits are computed for the last position only. An answer depends only on its prompt
and its seed: see `counter_noise` and `batch_invariance`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from alignment.errors import ConfigError, StageError
from alignment.fastpath import Decoding, use_for_decoding
from alignment.inference.batch_invariance import Referee
from alignment.inference.counter_noise import GumbelNoise, step_keys
from alignment.inference.decode import Ends, Row, decode
from alignment.inference.types import SILENT, Sample, SamplingSettings
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.load import context_length
from alignment.models.stepper import ModelStepper, Stepper
from alignment.utils.progress import Progress
from alignment.utils.seeds import derive_seed
from alignment.utils.threads import crew


def sample_seeds(seed: int, prompt_ids: Sequence[str], k: int) -> list[list[int]]:
    """A seed for each (prompt id, k); independent of each other and of the order of prompts."""
    return [[derive_seed(seed, name, index) for index in range(k)] for name in prompt_ids]


class TransformersEngine:
    """See the module.

    Args:
        ends: ids that end an answer; None takes the renderer's and those of the generation
            config. An empty collection makes every answer exactly `max_new_tokens` long.
        least_rows: fewest sequences per thread.

    Attributes:
        refereed: number of draws that the last call decided one by one.
        noise: largest rounding noise in the logits that the last call measured.
    """

    def __init__(
        self,
        model: Any,
        renderer: ChatRenderer,
        *,
        ends: Collection[int] | None = None,
        least_rows: int = 1,
    ):
        self.model = model
        self.renderer = renderer
        self.ends = end_ids(model, renderer) if ends is None else frozenset(ends)
        self._least_rows = least_rows
        self.refereed = 0
        self.noise = 0.0
        self._fast: Decoding | None = None

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[int]],
        settings: SamplingSettings,
        progress: Progress = SILENT,
    ) -> list[list[Sample]]:
        """See `Engine`; the model is put into eval mode for the call.

        Raises:
            ConfigError: a prompt is empty, or with `max_new_tokens` exceeds the context.
            StageError: the model's output is not finite, or one sequence alone exhausts the memory.
        """
        self._check(prompts, settings)
        device = next(self.model.parameters()).device
        dtype = next(self.model.parameters()).dtype
        exact = settings.exact if settings.exact is not None else dtype == torch.float32
        rows = [
            Row(index, place, list(prompt), seed)
            for index, (prompt, row) in enumerate(zip(prompts, seeds, strict=True))
            for place, seed in enumerate(row)
        ]
        progress.begin("sampling", len(rows), "answers")
        samples: list[list[Sample | None]] = [[None] * len(row) for row in seeds]
        texts = _Texts(self.renderer, self.ends, settings)
        ends = Ends(
            torch.tensor(sorted(self.ends), dtype=torch.long, device=device),
            texts.complete if settings.stop else None,
        )
        self.refereed, self.noise = 0, 0.0
        with ExitStack() as running:
            running.enter_context(_eval_mode(self.model))
            # At every call, because the model may have been trained since the last one.
            self._fast = use_for_decoding(self.model)
            workers = self._fast.workers if self._fast is not None else 1
            running.enter_context(crew(workers))
            tokens, started = 0, time.monotonic()
            for batch in self._batches(rows, settings, ends, exact, workers, progress):
                for row in batch:
                    tokens += len(row.tokens)
                    text = texts.text(row.tokens)
                    samples[row.prompt_index][row.place] = Sample(
                        row.tokens, row.logprobs, row.finished, text
                    )
                spent = max(time.monotonic() - started, 1e-9)
                progress.advance(len(batch), tokens_per_s=tokens / spent)
        return [[sample for sample in row if sample is not None] for row in samples]

    def _batches(
        self,
        rows: list[Row],
        settings: SamplingSettings,
        ends: Ends,
        exact: bool,
        workers: int,
        progress: Progress,
    ) -> Iterator[list[Row]]:
        """Decode all rows, longest prompts first, so that a lack of memory shows early."""
        # Samples of one prompt stay together, because they share its prefill.
        ordered = sorted(rows, key=lambda row: (-len(row.prompt), row.prompt_index))
        size = min(settings.batch_size, max(self._least_rows, -(-len(ordered) // workers)))
        batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]

        def work(batch: list[Row]) -> Referee | None:
            return self._decode(batch, settings, ends, exact, progress)

        with ThreadPoolExecutor(workers) as pool:
            running = {pool.submit(work, batch): batch for batch in batches}
            try:
                while running:
                    for done in wait(running, return_when=FIRST_COMPLETED).done:
                        batch = running.pop(done)
                        error = done.exception()
                        if error is not None and _out_of_memory(error):
                            halves = _halves(batch, error)
                            if torch.cuda.is_available():
                                torch.cuda.empty_cache()
                            progress.say(
                                f"out of memory with {len(batch)} sequences in a batch: "
                                f"continuing with {len(halves[0])}"
                            )
                            running |= {pool.submit(work, half): half for half in halves}
                            continue
                        referee = done.result()
                        self.refereed += referee.decided if referee else 0
                        self.noise = max(self.noise, referee.noise if referee else 0.0)
                        yield batch
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _decode(
        self,
        batch: list[Row],
        settings: SamplingSettings,
        ends: Ends,
        exact: bool,
        progress: Progress,
    ) -> Referee | None:
        """Draw the answers of one batch; returns its referee, if draws are exact."""
        device = next(self.model.parameters()).device
        gumbel = GumbelNoise(self.model.get_output_embeddings().weight.shape[0], device)
        referee = Referee(self.model, gumbel, settings, progress) if exact else None
        keys = step_keys([row.seed for row in batch], settings.max_new_tokens).to(device)
        for _ in decode(self._stepper(settings), batch, keys, settings, ends, gumbel, referee):
            pass
        if not all(math.isfinite(value) for row in batch for value in row.logprobs):
            raise StageError(
                "the policy's probabilities are not finite",
                remedy="its training diverged: lower the learning rate, or check the preceding "
                "stage's loss curve",
            )
        return referee

    def _stepper(self, settings: SamplingSettings) -> Stepper:
        if self._fast is not None:
            return self._fast.stepper(settings.max_new_tokens)
        return ModelStepper(self.model, settings.max_new_tokens)

    def _check(self, prompts: Sequence[Sequence[int]], settings: SamplingSettings) -> None:
        if any(not prompt for prompt in prompts):
            raise ConfigError("an empty prompt cannot be answered")
        limit = context_length(self.model.config)
        longest = max((len(prompt) for prompt in prompts), default=0)
        if limit is not None and longest + settings.max_new_tokens > limit:
            raise ConfigError(
                f"a prompt of {longest} tokens and {settings.max_new_tokens} new ones exceed "
                f"the model's context of {limit}",
                remedy="lower generation.max_new_tokens or generation.max_prompt_tokens",
            )


def end_ids(model: Any, renderer: ChatRenderer) -> frozenset[int]:
    """Ids that end an answer: the renderer's and those of the generation config."""
    more = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return renderer.ends | frozenset([more] if isinstance(more, int) else more or [])


class _Texts:
    """Detects stop texts and cuts them from answers."""

    def __init__(self, renderer: ChatRenderer, ends: frozenset[int], settings: SamplingSettings):
        self._renderer = renderer
        self._ends = ends
        self._settings = settings
        # A token spells at least one byte (except special ones, hence the margin), so a stop text
        # that was just completed lies within this many last tokens.
        self._reach = max((len(text.encode()) for text in settings.stop), default=0) + 8

    def complete(self, tokens: Sequence[int]) -> bool:
        """Whether the last tokens contain a complete stop text."""
        tail = list(tokens[-self._reach :])
        spelled = self._renderer.tokenizer.decode(tail, skip_special_tokens=False)
        return any(text in spelled for text in self._settings.stop)

    def text(self, tokens: list[int]) -> str:
        visible = tokens[:-1] if tokens and tokens[-1] in self._ends else tokens
        return self._settings.cut(self._renderer.text(visible))


def _halves(batch: list[Row], error: BaseException) -> list[list[Row]]:
    if len(batch) == 1:
        raise StageError(
            "one sequence alone does not fit into memory",
            where=f"prompt of {len(batch[0].prompt)} tokens",
            remedy="lower generation.max_prompt_tokens or generation.max_new_tokens",
        ) from error
    middle = (len(batch) + 1) // 2
    return [batch[:middle], batch[middle:]]


def _out_of_memory(error: BaseException) -> bool:
    """Whether it is torch's own error on GPUs, or the RuntimeError that it raises on CPUs."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    message = str(error).lower()
    return "can't allocate memory" in message or "not enough memory" in message


@contextmanager
def _eval_mode(model: Any) -> Iterator[None]:
    """Put the model into eval mode, without dropout, and restore its mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
