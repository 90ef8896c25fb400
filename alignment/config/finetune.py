"""Settings of pretraining (built-in world), of adapters and of supervised fine-tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from alignment.config.section import Section


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
    final_rate: float = Field(default=0.1, ge=0, le=1)
    """The cosine ends at this share of the highest learning rate."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of all steps with a rising learning rate."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's first decay (Llama 2 §2.2)."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """AdamW's second decay (Llama 2 §2.2)."""
    epsilon: float = Field(default=1e-5, gt=0)
    """AdamW's ε (Llama 2 §2.2)."""
    weight_decay: float = Field(default=0.1, ge=0)
    """On matrices; norms are left alone."""
    clip: float = Field(default=1.0, gt=0)
    """Highest norm of the gradient."""
    checkpoint_every: int = Field(default=100, ge=1)
    """Optimiser steps between two checkpoints that a killed run goes on from."""

    @model_validator(mode="after")
    def _shapes(self) -> PretrainConfig:
        if self.hidden % self.heads or (self.hidden // self.heads) % 2:
            raise ValueError(
                "hidden must be a multiple of heads with an even width per head (rotary embedding)"
            )
        if self.heads % self.kv_heads:
            raise ValueError("heads must be a multiple of kv_heads")
        if self.length > self.context:
            raise ValueError("length cannot exceed context")
        return self


class AdapterConfig(Section):
    """Train all weights, or a low-rank adapter (LoRA) over a frozen checkpoint.

    An adapter sits over the last full checkpoint of its line (the program's base model where every
    fine-tuning uses LoRA). Training from a version that is an adapter continues that adapter.
    """

    method: Literal["full", "lora"] = "full"
    """`full`: every weight. `lora`: two thin matrices beside each chosen linear layer."""
    rank: int = Field(default=16, ge=1)
    """`lora`: inner width of the thin matrices."""
    alpha: float = Field(default=32.0, gt=0)
    """`lora`: the update is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """`lora`: dropout before the first thin matrix while training."""
    target_modules: tuple[str, ...] = ("all-linear",)
    """`lora`: names of the layers that get one; `all-linear` is every linear layer but the head."""

    @field_validator("target_modules")
    @classmethod
    def _some_target(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if not values or ("all-linear" in values and len(values) > 1):
            raise ValueError("name at least one layer, or `all-linear` alone")
        return values


class StudentConfig(Section):
    """A smaller model that learns from the same gold answers (Llama 2 §3.2.3: rejection sampling
    was done with the 70B model alone; the smaller ones were fine-tuned on what it sampled)."""

    path: str | None = Field(default=None, min_length=1)
    """Directory with safetensors weights and a tokenizer, or a hub name."""
    revision: str | None = Field(default=None, min_length=1)
    """Branch, tag or commit of a hub name; unset takes the default branch."""
    size: PretrainConfig | None = None
    """Built-in world: shape and training of the student instead of a path."""

    @model_validator(mode="after")
    def _one_source(self) -> StudentConfig:
        if (self.path is None) == (self.size is None):
            raise ValueError("a student has either a path or a size")
        return self


class FinetuneConfig(Section):
    """Supervised fine-tuning on answers (Llama 2 §3.1); the loss counts answer tokens alone."""

    learning_rate: float = Field(default=2e-5, gt=0)
    """Highest learning rate: 2e-5 in the paper; tiny models want about 1e-3, LoRA about 2e-4."""
    final_rate: float = Field(default=0.0, ge=0, lt=1)
    """The cosine ends at this share of the highest learning rate."""
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of all steps with a rising learning rate."""
    epochs: int = Field(default=2, ge=1)
    """Passes over the data."""
    batch: int = Field(default=64, ge=1)
    """Rows an optimiser step sees: packed windows, or single conversations without packing."""
    micro_batch: int = Field(default=8, ge=1)
    """At most so many rows in one forward pass; bounds memory. The gradient is that of the whole
    batch, each answer token weighing the same."""
    max_length: int = Field(default=4096, ge=16)
    """Window in tokens (never beyond what the model was made for). Longer conversations lose
    whole turns from the front; an answer that does not fit is left out and counted."""
    packing: bool = True
    """Fill each window with several conversations. They do not attend to one another."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's first decay."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """AdamW's second decay."""
    epsilon: float = Field(default=1e-5, gt=0)
    """AdamW's ε."""
    weight_decay: float = Field(default=0.1, ge=0)
    """On matrices; norms and biases are left alone."""
    clip: float = Field(default=1.0, gt=0)
    """Highest norm of the gradient."""
    demonstrations: float = Field(default=0.0, ge=0)
    """RLHF versions: mix in so many demonstrations per selected answer (0.1: one to ten)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more work."""
    checkpoint_every: int = Field(default=50, ge=1)
    """Optimiser steps between two checkpoints that a killed run goes on from."""
    adapter: AdapterConfig = AdapterConfig()
    """Full fine-tuning or LoRA."""
