"""AdamW's settings: said once, for every training."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from alignment.config.section import Section

Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Section):
    """AdamW and the clipping of gradients, as in Llama 2 (§2.2, §3.1).

    Every training follows the top-level `optimizer`, but for what its own `optimizer` names.
    Learning rates and their schedules stand with each training: the paper gives each its own.
    """

    betas: tuple[Decay, Decay] = (0.9, 0.95)
    """Decays of AdamW's first and second moment."""
    adam_epsilon: float = Field(default=1e-5, gt=0)
    """AdamW's ε. 1e-5 as the paper; torch's and transformers' own default is 1e-8."""
    weight_decay: float = Field(default=0.1, ge=0)
    """On matrices; norms and biases are left alone."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Longer gradients are scaled down; in PPO policy and critic each for itself."""
