"""The types of the engine interface: settings, samples, and the engine itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from alignment.config.generation import GenerationConfig
from alignment.errors import ConfigError
from alignment.utils.progress import Progress, SilentProgress

SILENT = SilentProgress()


@dataclass(frozen=True)
class SamplingSettings:
    """How to draw answers.

    Attributes:
        max_new_tokens: longest answer, EOS included.
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_p: nucleus; 1 is off.
        top_k: likeliest tokens kept; 0 is off.
        stop: texts that end an answer; they and anything after them are cut from its text.
        batch_size: sequences in a batch; the text does not depend on it.
        exact: decide close draws by computing that sequence alone, so that rounding noise of the
            batch cannot change the text; `None` does so in float32 only (see `batch_invariance`).
    """

    max_new_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    stop: tuple[str, ...] = ()
    batch_size: int = 256
    exact: bool | None = None

    def __post_init__(self) -> None:
        wrong = [
            name
            for name, good in (
                ("max_new_tokens must be ≥ 1", self.max_new_tokens >= 1),
                ("temperature must be ≥ 0", self.temperature >= 0),
                ("top_p must lie in (0, 1]", 0 < self.top_p <= 1),
                ("top_k must be ≥ 0", self.top_k >= 0),
                ("a stop text must not be empty", all(self.stop)),
                ("batch_size must be ≥ 1", self.batch_size >= 1),
            )
            if not good
        ]
        if wrong:
            raise ConfigError("; ".join(wrong), where="sampling settings")

    @classmethod
    def of(cls, config: GenerationConfig, *, temperature: float | None = None) -> SamplingSettings:
        """The settings of a program's section, with another temperature if one is given."""
        return cls(
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature if temperature is None else temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            stop=config.stop,
            batch_size=config.generation_batch_size,
        )

    def cut(self, text: str) -> str:
        """`text` up to its first stop text, then stripped; unchanged if it has none."""
        positions = [text.find(word) for word in self.stop if word in text]
        return text[: min(positions)].strip() if positions else text


@dataclass(frozen=True)
class Sample:
    """One answer.

    Attributes:
        token_ids: the drawn ids, the EOS included if it was drawn.
        logprobs: log π(token) at the sampling temperature, before top-k and top-p; one per token.
        finished: the answer ended with EOS or a stop text, not at the token limit.
        text: the answer as text, without stop text and special tokens.
    """

    token_ids: list[int]
    logprobs: list[float]
    finished: bool
    text: str


class Engine(Protocol):
    """Anything that draws answers: our own loop, a vLLM server, an endpoint."""

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[Sequence[int]],
        settings: SamplingSettings,
        progress: Progress = SILENT,
    ) -> list[list[Sample]]:
        """For prompt i (token ids), one answer per seed in `seeds[i]`, in their order.

        An answer depends only on its prompt and its seed.
        """
