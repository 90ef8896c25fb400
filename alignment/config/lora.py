"""LoRA: one section for every training that can use it."""

from __future__ import annotations

from pydantic import Field, field_validator

from alignment.config.section import Section


class LoraConfig(Section):
    """A low-rank adapter (LoRA) over a frozen checkpoint: two thin matrices beside each layer.

    An adapter sits over the last full checkpoint of its line (the program's base model where every
    fine-tuning uses LoRA). Training from a version that is an adapter continues that adapter.
    """

    r: int = Field(default=16, ge=1)
    """Inner width of the thin matrices: the rank."""
    alpha: float = Field(default=32.0, gt=0)
    """The update is scaled by alpha / r."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before the first thin matrix while training; `ppo.lora` knows none."""
    target_modules: tuple[str, ...] = ("all-linear",)
    """Names of the layers that get one; `all-linear` is every linear layer but the head."""

    @field_validator("target_modules")
    @classmethod
    def _some_target(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if not values or ("all-linear" in values and len(values) > 1):
            raise ValueError("name at least one layer, or `all-linear` alone")
        return values
