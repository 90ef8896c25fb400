"""A policy made ready for training, and written as a checkpoint afterwards: full or LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from alignment.config.lora import LoraConfig
from alignment.models.adapters import (
    adapter_base,
    add_adapter,
    check_continues,
    is_adapter,
    save_adapter,
)
from alignment.models.load import Dtype, load_policy, save_model


def trainable_policy(
    path: str | Path,
    lora: LoraConfig | None,
    *,
    dtype: Dtype = "float32",
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Any:
    """The checkpoint at `path`, with what is to be trained trainable.

    Without `lora`: every weight, kept in float32 whatever `dtype` (an update of 1e-5 of a weight is
    lost in bfloat16); an adapter is merged first. With it: the base frozen in `dtype`, the adapter
    in float32; an adapter at `path` is continued, a full checkpoint gets a fresh one.

    Raises:
        ConfigError: the adapter at `path` has another shape than the configured one.
    """
    if lora is None:
        return load_policy(path, dtype="float32", device=device)
    if is_adapter(path):
        check_continues(path, lora)
        return load_policy(path, dtype=dtype, device=device, merge=False)
    return add_adapter(load_policy(path, dtype=dtype, device=device), lora, seed=seed)


def save_policy(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
    *,
    start: str | Path,
    dtype: Dtype = "float32",
) -> None:
    """Write what `trainable_policy` made from `start`: a full checkpoint, or the adapter alone."""
    if hasattr(model, "peft_config"):
        base = adapter_base(start) if is_adapter(start) else start
        save_adapter(model, tokenizer, directory, base)
    else:
        save_model(model.to(getattr(torch, dtype)), tokenizer, directory)
