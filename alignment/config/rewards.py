"""Settings of the two reward models and of what policies climb: the combined reward."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from alignment.config.lora import LoraConfig
from alignment.config.optimizer import OptimizerConfig
from alignment.config.section import Override, Section


class MarginTable(Section):
    """The margin m(strength) of the ranking loss, in raw score units."""

    significantly: float = Field(default=0.0, ge=0)
    """Margin where the chosen answer is significantly better."""
    better: float = Field(default=0.0, ge=0)
    """Margin where it is better."""
    slightly: float = Field(default=0.0, ge=0)
    """Margin where it is slightly better."""
    negligibly: float = Field(default=0.0, ge=0)
    """Margin where it is negligibly better or the annotator was unsure."""


MARGINS = {
    "none": MarginTable(),
    "small": MarginTable(significantly=1.0, better=2 / 3, slightly=1 / 3),
    "large": MarginTable(significantly=3.0, better=2.0, slightly=1.0),
}
"""Llama 2, Table 27."""


class MixtureConfig(Section):
    """Which comparisons each reward model learns from (Llama 2 §3.2.2)."""

    helpfulness_rest: float = Field(default=1.0, ge=0)
    """Helpfulness RM: all helpfulness comparisons, and this many times as many of the rest."""
    safety_share: float = Field(default=0.9, gt=0, le=1)
    """Safety RM: all safety comparisons make up this share; helpfulness ones fill the rest."""


class RewardsConfig(Section):
    """How the helpfulness and the safety reward model are trained and measured."""

    init: str = "latest"
    """Checkpoint to start from: `latest` chat version, `sft`, `base`, or a model directory."""
    margin: Literal["none", "small", "large", "own"] = "small"
    """Margin table of the ranking loss (Llama 2, Table 27); `own` uses `margins`."""
    margins: MarginTable | None = None
    """Your own margin table; only with `margin: own`."""
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
    batch: int = Field(default=512, ge=1)
    """Comparisons (or whole rankings) an optimiser step sees."""
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
    """Comparisons with a longer side (prompt and answer, in tokens) are left out and counted."""
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
    def _own_table(self) -> RewardsConfig:
        if (self.margin == "own") != (self.margins is not None):
            raise ValueError("margin: own and margins go together; give both or neither")
        return self

    @model_validator(mode="after")
    def _guards_to_teach(self) -> RewardsConfig:
        if self.guard_spoilt and not self.guard_share:
            raise ValueError("guard_spoilt teaches guards, and guard_share: 0 trains none")
        return self

    @property
    def margin_table(self) -> MarginTable:
        """The table that `margin` and `margins` name."""
        return self.margins if self.margins is not None else MARGINS[self.margin]


class CombineConfig(Section):
    """One reward out of two."""

    method: Literal["linear", "piecewise", "constrained"] = "linear"
    """`linear`: weighted sum of standardised scores; not the paper's, but smooth where small safety
    models err. `piecewise`: safety where it matters, else helpfulness (Llama 2 §3.2.3).
    `constrained`: Lagrangian of helpfulness under a safety floor (Safe-RLHF)."""
    helpfulness_weight: float = Field(default=1.0, ge=0)
    """Weight of the standardised helpfulness score (`linear`)."""
    safety_weight: float = Field(default=1.0, ge=0)
    """Weight of the standardised safety score (`linear`)."""
    threshold: float = Field(default=0.15, gt=0, lt=1)
    """`piecewise`: σ(safety logit) under which the safety score rules whatever the prompt."""
    threshold_precision: float | None = Field(default=None, gt=0, le=1)
    """`piecewise`: fit the threshold anew for each safety model, on held-out answers of known
    safety: this share of the answers below it are unsafe, and as many of the unsafe ones as can
    be are below (Llama 2's 0.15 had precision 0.89, recall 0.55)."""
    threshold_recall: float | None = Field(default=None, gt=0, le=1)
    """`piecewise`: likewise; this share of the unsafe answers lies below, with as few safe ones as
    can be."""
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
        wishes = [self.threshold_precision, self.threshold_recall]
        if None not in wishes:
            raise ValueError("give threshold_precision or threshold_recall, not both")
        if wishes != [None, None] and self.method != "piecewise":
            raise ValueError("a threshold is fitted for method: piecewise only")
        return self

    @model_validator(mode="after")
    def _something_to_climb(self) -> CombineConfig:
        if self.method == "linear" and self.helpfulness_weight + self.safety_weight == 0:
            raise ValueError("one of helpfulness_weight and safety_weight must be above 0")
        return self
