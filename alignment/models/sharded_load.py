"""Loads a checkpoint so that no process ever holds a whole model: each reads its own rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
    PreTrainedModel,
)

from alignment.models.adapters import is_adapter
from alignment.models.load import (
    Dtype,
    backbone,
    draw_head,
    has_scalar_head,
    load_policy,
    load_scalar,
    scalar_head,
)
from alignment.models.sharding import shard
from alignment.utils import distributed

Kind = Literal["policy", "scalar", "body"]
"""A causal model, a sequence classifier with one output, or the backbone of either."""


def load_sharded(
    path: str | Path,
    kind: Kind,
    *,
    dtype: Dtype = "float32",
    learns: bool = True,
    device: torch.device | str = "cpu",
) -> PreTrainedModel:
    """A model, split over all processes.

    Args:
        dtype: what it computes in.
        learns: float32 masters; a frozen model has its weights in `dtype`.

    Adapters and checkpoints whose names transformers translates (fused experts) are loaded whole
    in every process and then split.
    """
    stored = dtype if not learns else "float32"
    model: Any = None if is_adapter(path) else _by_rows(Path(path), kind, stored, device, dtype)
    if model is None:
        model = _whole(path, kind, stored, device)
        shard(model, _compute(dtype, learns))
    ready: PreTrainedModel = model.requires_grad_(learns).eval()
    return ready


def _compute(dtype: Dtype, learns: bool) -> torch.dtype | None:
    return getattr(torch, dtype) if learns and dtype != "float32" else None


def _whole(path: str | Path, kind: Kind, dtype: Dtype, device: torch.device | str) -> Any:
    if kind == "policy":
        return load_policy(path, dtype=dtype, device=device)
    scalar = kind == "scalar" or has_scalar_head(path)
    model = (load_scalar if scalar else load_policy)(path, dtype=dtype, device=device)
    return model if kind == "scalar" else backbone(model)


def _by_rows(
    path: Path, kind: Kind, stored: Dtype, device: torch.device | str, dtype: Dtype
) -> Any:
    """The model, each process with its rows; None if names in the files are other than its own."""
    files: dict[str, Path] = {}
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            files |= dict.fromkeys(weights.keys(), file)
    model = _empty(path, kind, stored)
    prefix = f"{model.base_model_prefix}."  # a body's names have none, those in the files do
    stored_as = {
        name: name if name in files else prefix + name for name, _ in model.named_parameters()
    }
    new = {"score.weight", "classifier.weight"} if kind == "scalar" else set()
    if not set(stored_as.values()) - new <= set(files):
        return None
    learns = stored == "float32"
    shard(model, _compute(dtype, learns), device)
    state: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        place = stored_as[name]
        if place in files:
            local = _rows(files[place], place, parameter).to(parameter.dtype)
        else:  # a head that is new; all processes draw the same
            local = torch.empty(parameter.shape)
            draw_head(local)
            local = local[slice(*distributed.chunk(len(local)))]
        state[name] = distributed.like(parameter, local.to(device))
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    for name, buffer in model.named_buffers():
        owner = model.get_submodule(name.rpartition(".")[0])
        setattr(owner, name.rpartition(".")[2], buffer.to(device))
    return model


def _empty(path: Path, kind: Kind, stored: Dtype) -> Any:
    """The architecture without weights; buffers, which no file holds, are computed."""
    from accelerate import init_empty_weights

    config = AutoConfig.from_pretrained(str(path), trust_remote_code=False)
    kinds = {
        "policy": AutoModelForCausalLM,
        "scalar": AutoModelForSequenceClassification,
        "body": AutoModel,
    }
    auto: Any = kinds[kind]
    if kind == "scalar":
        config.num_labels = 1
    with init_empty_weights(include_buffers=False):
        model: Any = auto.from_config(config, dtype=getattr(torch, stored))
    model.tie_weights()
    if kind == "policy" and (path / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(path)  # where answers end
    if kind == "scalar":
        scalar_head(model).float()
    return model


def _rows(file: Path, name: str, parameter: Tensor) -> Tensor:
    """This process's rows of a stored tensor."""
    start, stop = distributed.chunk(parameter.shape[0])
    with safe_open(file, framework="pt") as weights:
        rows: Tensor = weights.get_slice(name)[start:stop]
    return rows
