"""Settings of pretraining (built-in world) and of supervised fine-tuning."""

from __future__ import annotations

from pydantic import Field, model_validator

from alignment.config.location import Checkpoint
from alignment.config.lora import LoraConfig
from alignment.config.optimizer import OptimizerConfig
from alignment.config.section import Override, Section


class PretrainConfig(Section):
    """A small Llama trained from nothing on the built-in world's corpus."""

    vocabulary: int = Field(default=1024, ge=64)
    """Entries of the tokenizer that is trained on the corpus."""
    hidden: int = Field(default=96, ge=8)
    """Width of the residual stream."""
    layers: int = Field(default=4, ge=1)
    """Transformer blocks."""
    heads: int = Field(default=4, ge=1)
    """Attention heads (queries)."""
    kv_heads: int = Field(default=2, ge=1)
    """Key/value heads, shared by groups of query heads (grouped-query attention)."""
    intermediate: int = Field(default=256, ge=8)
    """Width of the SwiGLU layer."""
    context: int = Field(default=512, ge=16)
    """Longest sequence the model is made for (`max_position_embeddings`), in tokens."""
    length: int = Field(default=128, ge=8)
    """Tokens of one training row: documents are joined, EOS between them, and cut to rows."""
    batch: int = Field(default=32, ge=1)
    """Rows an optimiser step sees."""
    steps: int = Field(default=300, ge=1)
    """Optimiser steps."""
    learning_rate: float = Field(default=3e-3, gt=0)
    """Highest learning rate."""
    min_lr_ratio: float = Field(default=0.1, ge=0, le=1)
    """The cosine ends at this share of the highest learning rate (Llama 2 §2.2: 10 %)."""
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    """Share of all steps with a rising learning rate (the paper: 2,000 steps of some 500,000)."""
    optimizer: Override[OptimizerConfig] = OptimizerConfig()
    """What differs from the top-level `optimizer`."""
    checkpoint_every: int = Field(default=100, ge=1)
    """Optimiser steps between two checkpoints that a killed run goes on from."""

    def possible(self) -> PretrainConfig:
        """Itself.

        Raises:
            ValueError: no model has such a shape.
        """
        if self.hidden % self.heads or (self.hidden // self.heads) % 2:
            raise ValueError(
                "hidden must be a multiple of heads with an even width per head (rotary embedding)"
            )
        if self.heads % self.kv_heads:
            raise ValueError("heads must be a multiple of kv_heads")
        if self.length > self.context:
            raise ValueError("length cannot exceed context")
        return self


class StudentConfig(Section):
    """A smaller model that learns from the same gold answers (Llama 2 §3.2.3: rejection sampling
    was done with the 70B model alone; the smaller ones were fine-tuned on what it sampled)."""

    path: Checkpoint | None = Field(default=None, min_length=1)
    """Directory with safetensors weights and a tokenizer, or a hub name."""
    revision: str | None = Field(default=None, min_length=1)
    """Branch, tag or commit of a hub name; unset takes the default branch."""
    size: Override[PretrainConfig] | None = None
    """Built-in world, instead of a path: what differs from `base.pretrain`."""

    @model_validator(mode="after")
    def _one_source(self) -> StudentConfig:
        if (self.path is None) == (self.size is None):
            raise ValueError("a student has either a path or a size")
        return self


class FinetuneConfig(Section):
    """Supervised fine-tuning on answers (Llama 2 §3.1); the loss counts answer tokens alone."""

    learning_rate: float = Field(default=2e-5, gt=0)
    """Highest learning rate: 2e-5 in the paper; tiny models want about 1e-3, LoRA about 2e-4."""
    min_lr_ratio: float = Field(default=0.0, ge=0, lt=1)
    """The cosine ends at this share of the highest learning rate: at 0, since §3.1 names none (the
    10 % of §2.2 belong to pretraining)."""
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    """Share of all steps with a rising learning rate; ours, the paper names none for SFT."""
    epochs: int = Field(default=2, ge=1)
    """Passes over the data."""
    batch: int = Field(default=16, ge=1)
    """Rows an optimiser step sees: packed windows, or single conversations without packing.
    The paper's 64 are for 27,540 demonstrations; under 20 steps are refused."""
    per_device_train_batch_size: int = Field(default=8, ge=1)
    """At most so many rows in one forward pass; bounds memory. The gradient is that of the whole
    batch, each answer token weighing the same."""
    max_length: int = Field(default=2048, ge=16)
    """Window in tokens (never beyond what the model was made for). Longer conversations lose
    whole turns from the front; an answer that does not fit is left out and counted."""
    packing: bool = True
    """Fill each window with several conversations. They do not attend to one another."""
    optimizer: Override[OptimizerConfig] = OptimizerConfig()
    """What differs from the top-level `optimizer`."""
    demonstrations: float = Field(default=0.0, ge=0)
    """RLHF versions: mix in so many demonstrations per selected answer (0.1: one to ten)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more work."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Optimiser steps between two checkpoints that a killed run goes on from."""
    lora: LoraConfig | None = None
    """A low-rank adapter instead of all weights; null trains all weights, as the paper does."""
