"""How answers are generated: said once, for every stage that generates."""

from __future__ import annotations

from pydantic import Field, field_validator

from alignment.config.section import Section


class GenerationConfig(Section):
    """Limits and sampling of answers.

    `sample`, `collect`, `evaluate` and `ppo` follow the top-level `generation`, but for what their
    own `generation` names.
    """

    max_new_tokens: int = Field(default=128, ge=1)
    """An answer that has not ended after so many tokens is cut and counts as unfinished."""
    max_prompt_tokens: int | None = Field(default=None, ge=1)
    """Longer prompts lose whole turns from the front; unset: whatever the context leaves. The
    reward models cut prompts by the top-level one, wherever they are asked."""
    temperature: float = Field(default=1.0, gt=0, le=10)
    """Sampling temperature of `evaluate` and `ppo`; `sample.temperature` and `collect.temperatures`
    are settings of their own. At 1 the KL figures are those of the policy itself; published win
    rates are often of lower temperatures. PPO takes its log-probabilities at it ("N details",
    10)."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Nucleus: the smallest set of tokens with at least this probability. 1 is off. PPO draws from
    the whole distribution whatever `top_p` and `top_k` say: its ratios would be wrong else."""
    top_k: int = Field(default=0, ge=0)
    """Only the k likeliest tokens. 0 is off, in PPO always."""
    stop: tuple[str, ...] = ()
    """Texts that end an answer; the text itself is cut off. In PPO only EOS ends one."""
    generation_batch_size: int = Field(default=256, ge=1)
    """Sequences drawn side by side; halved when memory runs out. The text never depends on it."""

    @field_validator("stop")
    @classmethod
    def _stop(cls, stop: tuple[str, ...]) -> tuple[str, ...]:
        if any(not text for text in stop):
            raise ValueError("an empty stop text would end every answer at once")
        return stop
