"""Sampling K answers a prompt, keeping the best, and collecting pairs for annotation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator

from alignment.config.generation import GenerationConfig
from alignment.config.section import Override, Section

Temperature = Annotated[float, Field(gt=0, le=10)]


def _all_different(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(values)) != len(values):
        raise ValueError("a temperature stands twice")
    return values


Temperatures = Annotated[
    tuple[Temperature, ...], Field(min_length=1), AfterValidator(_all_different)
]


class SampleConfig(Section):
    """K answers for each prompt from the newest policy (Llama 2 §3.2.3)."""

    prompts: int = Field(default=4096, ge=1)
    """How many prompts of the pool a version samples for; each version draws its own."""
    fresh_prompts: bool = False
    """Take first the prompts that the fewest earlier versions sampled for: those that a policy has
    learned from say little about it. Else each version draws from the whole pool. In a program that
    began without it, it makes the versions from the second on again."""
    skip_categories: tuple[str, ...] = ()
    """Prompts of these categories are left out, as where a delivery does not cover them. What the
    policy could do there may be forgotten; `bag: all` is the remedy (Llama 2 §3.2.3)."""
    k: int = Field(default=16, ge=1, le=1024)
    """Answers a prompt. The paper never states its K; its figures cover 1 to 100."""
    temperature: float | Literal["search"] = "search"
    """Sampling temperature instead of `generation.temperature`, or `search`: the best of `grid`,
    tuned for each version (Fig 8)."""
    grid: Temperatures = (0.7, 0.85, 1.0, 1.15, 1.3)
    """Temperatures the search tries. Llama 2 found 1.2–1.3 best for its RLHF model."""
    search_prompts: int = Field(default=128, ge=2)
    """Prompts the temperature search samples for; drawn apart from the version's own prompts."""
    generation: Override[GenerationConfig] = GenerationConfig()
    """What differs from the top-level `generation`."""
    shard_prompts: int = Field(default=64, ge=1)
    """Prompts between two points from which a killed run goes on."""

    @field_validator("temperature")
    @classmethod
    def _warm(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and not 0 < value <= 10:
            raise ValueError("temperature must lie in (0, 10]")
        return value


class SelectConfig(Section):
    """Which samples become gold answers."""

    rule: Literal["top1", "threshold", "accept"] = "top1"
    """`top1`: the best of K (Llama 2). `threshold`: every answer whose reward reaches the
    `quantile` of all rewards (ReST). `accept`: each with probability exp((r − r_max)/beta), RSO."""
    quantile: float = Field(default=0.75, ge=0, lt=1)
    """For `threshold`: the share of a domain's candidates that lies below the bar. ReST raises it
    from one improvement to the next, which the versions' own settings can do."""
    beta: float = Field(default=0.5, gt=0)
    """For `accept`: the temperature of acceptance (RSO: 0.5), in units of the combined reward;
    RSO's are logits of preference. Towards 0 it becomes top-`per_prompt`."""
    per_prompt: int = Field(default=4, ge=1)
    """For `threshold` and `accept`: at most so many answers a prompt (RSO keeps 8 of 64)."""
    safety_threshold: float | None = Field(default=0.15, ge=0, le=1)
    """An answer whose safety probability σ(R_s) is lower never enters fine-tuning; unset is off, as
    in the paper, which has this threshold in PPO's reward only. Its 0.15 belongs to Meta's reward
    model: re-fit it on yours."""
    safety_scope: Literal["safety_prompts", "all"] = "safety_prompts"
    """Where the safety threshold holds: on prompts tagged for safety, or on every prompt."""
    finished_only: bool = True
    """Leave out answers that were cut at the token limit: they would teach not to end. Else a cut
    one is worth no more than the prompt's worst that ended. The paper says nothing of it."""
    random_control: bool = False
    """Also write a random pick of the same size (`control.jsonl`), the arm every gain must beat."""
    train_on: Literal["best", "random"] = "best"
    """What fine-tuning gets: the selection, or that arm: as many answers of each prompt, picked
    blindly among those that pass the filters."""
    bag_keep: int = Field(default=4, ge=1)
    """Answers of each prompt that a version keeps for later bags, where the newest reward models
    score them again and all versions compete."""
    bag_quantile: float = Field(default=0.25, ge=0, lt=1)
    """An older answer enters the bag only if its new reward reaches this quantile of the rewards
    that this version's own choice has in the same domain: Llama 2's bag holds top samples. It
    gives no number."""
    bag_share: float = Field(default=0.5, ge=0, lt=1)
    """Share of the training answers of each domain that earlier versions may have written, at most.
    Not in the paper."""


class CollectConfig(Section):
    """Pairs of answers sent to annotation after each version."""

    pairs: int = Field(default=4000, ge=0)
    """Pairs collected a version; 0 collects none. With under 2,000 of a domain a reward model
    hardly beats chance (Gao et al. 2022)."""
    safety_share: float = Field(default=0.5, ge=0, le=1)
    """Share of pairs on prompts tagged for safety."""
    temperatures: Temperatures = (0.7, 1.0, 1.3)
    """The two sides of a pair are drawn at different temperatures of this list where it can be
    (Llama 2 §3.2.1: two model variants, varying temperature)."""
    generation: Override[GenerationConfig] = GenerationConfig()
    """What differs from the top-level `generation`."""
