"""Loads a policy for training, full or LoRA, and saves it as a checkpoint afterwards."""

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
from alignment.models.sharded_load import load_sharded
from alignment.models.sharding import gather, is_sharded, shard
from alignment.utils import distributed


def trainable_policy(
    path: str | Path,
    lora: LoraConfig | None,
    *,
    dtype: Dtype = "float32",
    device: torch.device | str = "cpu",
    seed: int = 0,
    sharded: bool = False,
) -> Any:
    """Load the checkpoint at `path` for training.

    Without `lora` all weights are trained, in float32 whatever `dtype` is, because an update of
    1e-5 of a weight is lost in bfloat16; an adapter is merged first. With `lora` the base is frozen
    in `dtype` and only the adapter is trained, in float32: an adapter at `path` is continued, and
    a full checkpoint gets a fresh one. `sharded` splits the model over all processes; shards of a
    full model compute in `dtype`.

    Raises:
        ConfigError: the adapter at `path` has another shape than `lora`.
    """
    if lora is None:
        if sharded:
            return load_sharded(path, "policy", dtype=dtype, device=device)
        return load_policy(path, dtype="float32", device=device)
    if is_adapter(path):
        check_continues(path, lora)
        model: Any = load_policy(path, dtype=dtype, device=device, merge=False)
    else:
        model = add_adapter(load_policy(path, dtype=dtype, device=device), lora, seed=seed)
    if sharded:
        shard(model)
    return model


def save_policy(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
    *,
    start: str | Path,
) -> None:
    """Save a model that `trainable_policy` loaded: a full checkpoint, or the adapter alone.

    All processes call it; the first one writes. Weights are float32 whatever training computed in:
    in bfloat16 most of a version's small updates would fall back to the old weights. `align export`
    writes other formats.

    Args:
        start: the checkpoint that it was loaded from.
    """
    weights = gather(model) if is_sharded(model) else None
    if not distributed.is_first():
        return
    if hasattr(model, "peft_config"):
        base = adapter_base(start) if is_adapter(start) else start
        save_adapter(model, tokenizer, directory, base, weights)
    else:
        save_model(model, tokenizer, directory, weights)
