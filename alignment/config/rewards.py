"""Settings of the two reward models and of what policies climb: the combined reward."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from alignment.config.location import Checkpoint
from alignment.config.lora import LoraConfig
from alignment.config.optimizer import OptimizerConfig
from alignment.config.section import Override, Section, table
from alignment.config.vocabulary import Domain, Strength

Margins = dict[Strength, Annotated[float, Field(ge=0)]]
MARGINS: dict[str, Margins] = {
    "none": {"significantly": 0.0, "better": 0.0, "slightly": 0.0, "negligibly": 0.0},
    "small": {"significantly": 1.0, "better": 2 / 3, "slightly": 1 / 3, "negligibly": 0.0},
    "large": {"significantly": 3.0, "better": 2.0, "slightly": 1.0, "negligibly": 0.0},
}
"""Margin m(strength) of the ranking loss, in raw score units (Llama 2, Table 27)."""


WITHOUT_OPEN = 0.1
"""`rewards.mixture.helpfulness_rest` where there are no open comparisons."""


class MixtureConfig(Section):
    """Which comparisons each reward model learns from (Llama 2 §3.2.2). Open ones are those that
    came with `align ingest --origin open`, own ones all others."""

    helpfulness_rest: float | None = Field(default=None, ge=0)
    """Helpfulness RM: all own helpfulness comparisons, and this many times as many of the rest: own
    safety and all open ones. Unset: 1, the paper's, where open ones are as many as the own
    helpfulness ones; 0.1 where there are none, since a rest of safety alone teaches the model to
    prefer refusals, which departs from the paper; in between in proportion."""
    safety_share: float = Field(default=0.9, gt=0, le=1)
    """Safety RM: all safety comparisons, own and open, make up this share; helpfulness ones fill
    the rest."""

    def rest(self, domain: Domain, core: int, open: int) -> int:
        """How many comparisons of the rest are mixed with the `core` ones.

        Args:
            core: comparisons of the model's own domain, all of which it learns from.
            open: open ones among the rest.
        """
        if domain == "safety":
            return round(core * (1.0 - self.safety_share) / self.safety_share)
        if self.helpfulness_rest is not None:
            return round(self.helpfulness_rest * core)
        return round(WITHOUT_OPEN * core + (1 - WITHOUT_OPEN) * min(open, core))


class RewardsConfig(Section):
    """How the helpfulness and the safety reward model are trained and measured."""

    init: Checkpoint = "latest"
    """Checkpoint to start from: `latest` chat version, `sft`, `base`, or a model directory."""
    margin: Literal["none", "small", "large"] | Annotated[Margins, table(MARGINS["none"])] = "small"
    """Margin of the ranking loss by strength: a table of Llama 2's (Table 27), or your own
    (`{significantly: 1, better: 0.5}`; what it does not name has none)."""
    auxiliary_weight: float = Field(default=1.0, ge=0)
    """Safety RM: weight of the logistic loss on each answer's own safe/unsafe label (§3.2.2 has
    such a loss, but no weight: 1 is ours)."""
    mixture: MixtureConfig = MixtureConfig()
    """Which comparisons each model learns from."""
    guard_share: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the prompts whose comparisons train two guard models only, which training never
    sees and evaluation and early stopping ask. 0, as in the paper, trains none: evaluation and
    early stopping then ask the very models that training climbed, and say so."""
    guard_spoilt: float = Field(default=0.0, ge=0, le=1)
    """For this share of their comparisons, guards also learn that the chosen answer beats itself
    spoilt (looped, scrambled, or in answer to another prompt): what exploits of a reward model
    look like, and what no annotator ever saw. Needs `guard_share`."""
    epochs: int = Field(default=1, ge=1)
    """Passes over the data: one, the paper warns that more over-fit."""
    batch: int = Field(default=64, ge=1)
    """Comparisons (or whole rankings) an optimiser step sees. The paper's 512 are for millions of
    them; under 20 steps are refused."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Highest learning rate: 1e-5 in the paper (5e-6 for 70B); tiny models want about 1e-3."""
    min_lr_ratio: float = Field(default=0.1, ge=0, le=1)
    """The cosine ends at this share of the highest learning rate."""
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    """Share of all steps with a rising learning rate."""
    warmup_steps: int = Field(default=5, ge=0)
    """At least so many warm-up steps, whatever the share says (half of all steps at most)."""
    optimizer: Override[OptimizerConfig] = OptimizerConfig()
    """What differs from the top-level `optimizer`."""
    lora: LoraConfig | None = None
    """Train a low-rank adapter and the scalar head, folded together when done; null trains all
    weights."""
    max_length: int = Field(default=4096, ge=8)
    """Tokens of a prompt with its answer. Longer prompts lose whole turns from the front, and
    comparisons whose prompts would be cut to less than a quarter are left out."""
    max_tokens_per_micro_batch: int = Field(default=8192, ge=64)
    """Tokens of one forward pass: batches are cut into pieces of about this size, which bounds
    memory and changes no result beyond float noise."""
    prefix_sharing: bool = True
    """Compute what both answers have in common once, where the architecture allows it."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more work."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Optimiser steps between two checkpoints that a killed run goes on from."""

    @model_validator(mode="after")
    def _guards_to_teach(self) -> RewardsConfig:
        if self.guard_spoilt and not self.guard_share:
            raise ValueError("guard_spoilt teaches guards, and guard_share: 0 trains none")
        return self

    @property
    def margin_table(self) -> Margins:
        """The table that `margin` is or names."""
        return MARGINS[self.margin] if isinstance(self.margin, str) else self.margin

    @property
    def margin_name(self) -> str:
        """The table's name; `own` if it is none of the paper's."""
        return self.margin if isinstance(self.margin, str) else "own"


Weight = Annotated[float, Field(ge=0)]
Wish = Annotated[float, Field(gt=0, lt=1)]
WEIGHTS: dict[Domain, float] = {"helpfulness": 1.0, "safety": 1.0}


class CombineConfig(Section):
    """One reward out of two."""

    method: Literal["linear", "piecewise", "constrained"] = "linear"
    """`linear`: weighted sum of standardised scores; not the paper's, but smooth where small safety
    models err. `piecewise`: safety where it matters, else helpfulness (Llama 2 §3.2.3).
    `constrained`: Lagrangian of helpfulness under a safety floor (Safe-RLHF)."""
    weights: Annotated[dict[Domain, Weight], table(WEIGHTS)] = WEIGHTS
    """Weights of the standardised scores of both domains (`linear`)."""
    threshold: float = Field(default=0.15, gt=0, lt=1)
    """`piecewise`: σ(safety logit) under which the safety score rules whatever the prompt."""
    threshold_for: dict[Literal["precision", "recall"], Wish] | None = None
    """`piecewise`: fit the threshold anew for each safety model, on held-out answers of known
    safety. `{precision: 0.9}`: with 90 % confidence this share of the answers below it are unsafe,
    and as many of the unsafe ones as can be are below (Llama 2's 0.15 had precision 0.89, recall
    0.55). `{recall: 0.6}`: so large a share of the unsafe answers lies below, with as few safe ones
    as can be. 200 such answers or more, else little is sure."""
    whiten: bool = True
    """`piecewise`: shift and scale each batch of combined rewards to mean 0, deviation 1."""
    floor: float = 0.0
    """`constrained`: the mean standardised safety score that must be kept."""
    multiplier: float = Field(default=1.0, gt=0)
    """`constrained`: the Lagrange multiplier λ at the start."""
    multiplier_rate: float = Field(default=0.05, gt=0)
    """`constrained`: step size of log λ."""
    multiplier_limit: float = Field(default=20.0, gt=0)
    """`constrained`: λ never grows beyond this."""

    @model_validator(mode="after")
    def _one_wish(self) -> CombineConfig:
        if self.threshold_for is not None:
            if len(self.threshold_for) != 1:
                raise ValueError("threshold_for names either precision or recall")
            if self.method != "piecewise":
                raise ValueError("a threshold is fitted for method: piecewise only")
        return self

    @model_validator(mode="after")
    def _something_to_climb(self) -> CombineConfig:
        if self.method == "linear" and not any(self.weights.values()):
            raise ValueError("one of the two weights must be above 0")
        return self
