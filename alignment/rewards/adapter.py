"""LoRA for reward models: a low-rank update and a full scalar head over a frozen checkpoint.

The adapter is injected into the model for training, so the loop, the layouts and the checkpoints
stay the same. It is saved as a PEFT directory (task SEQ_CLS, with the head among the weights), so
two reward models and a policy over one checkpoint store its weights once. `merge` folds the adapter
in for scoring.

If the policy is an adapter itself, both updates are added: the sum of two low-rank updates is one
update of the summed rank, and that is what is saved.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from alignment.config.lora import LoraConfig as LoraSettings
from alignment.errors import ConfigError
from alignment.models.adapters import (
    ADAPTER_CONFIG,
    adapter_base,
    base_name,
    drawing,
    is_adapter,
    lora_config,
)
from alignment.models.load import scalar_head
from alignment.utils.files import atomic_write_json, read_json

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # PEFT's prefix of every name


def inject(model: PreTrainedModel, config: LoraSettings, *, seed: int) -> None:
    """Inject a fresh adapter, and freeze everything except it and the head.

    Raises:
        ConfigError: the model lacks a target module.
    """
    from peft import inject_adapter_in_model

    with drawing(seed, where="rewards.lora"):
        inject_adapter_in_model(lora_config(config, exclude_modules=["score", "classifier"]), model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    scalar_head(model).requires_grad_(True)


def dropouts(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The adapter's own dropout modules."""
    layers = [module for name, module in model.named_modules() if name.endswith("lora_dropout")]
    return [inner for module in layers for inner in module.modules()]


def merge(model: PreTrainedModel) -> None:
    """Fold adapters into the weights of their layers; does nothing without adapters."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module.get_base_layer())
    for parameter in model.parameters():
        parameter.requires_grad_(True)


@dataclass(frozen=True)
class Update:
    """A low-rank update of some layers: W + B·A, with the scale already in B.

    Attributes:
        layers: name of the layer → A (r, in), B (out, r).
    """

    layers: dict[str, tuple[Tensor, Tensor]]

    @classmethod
    def of(cls, model: PreTrainedModel) -> Update:
        """The update of the adapter that `inject` put into a model."""
        from peft.tuners.lora import LoraLayer

        layers = {}
        for name, module in model.named_modules():
            if isinstance(module, LoraLayer):
                layer: Any = module
                a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
                scaled = b * layer.scaling["default"]
                layers[name] = a.detach().cpu(), scaled.detach().cpu()
        return cls(layers)

    @classmethod
    def read(cls, directory: Path) -> Update:
        """The update in a policy's adapter directory, without the language-model head.

        Raises:
            ConfigError: it is not a plain LoRA.
        """
        config = read_json(directory / ADAPTER_CONFIG)
        odd = [
            name
            for name in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern")
            if config.get(name)
        ]
        if config.get("peft_type") != "LORA" or odd:
            raise ConfigError(
                "only a plain LoRA adapter can lie below a reward adapter",
                where=str(directory / ADAPTER_CONFIG),
                remedy="set rewards.lora: null, or rewards.init: base",
            )
        stored = load_file(directory / WEIGHTS)
        scale = config["lora_alpha"] / config["r"]
        layers = {}
        for name, a in stored.items():
            layer, kind, _ = name.removeprefix(PREFIX).rpartition(".lora_A.weight")
            if kind and layer != "lm_head":
                b = stored[name.replace(".lora_A.", ".lora_B.")]
                layers[layer] = a.float(), b.float() * scale
        return cls(layers)

    def plus(self, other: Update) -> Update:
        """Both updates as one, whose rank is the sum of theirs."""
        layers = dict(self.layers)
        for name, (a, b) in other.layers.items():
            if name in layers:
                own = layers[name]
                a, b = torch.cat([own[0], a]), torch.cat([own[1], b], dim=1)
            layers[name] = a, b
        return Update(layers)


def save_reward_adapter(model: PreTrainedModel, start: Path, directory: Path) -> Path:
    """Write the adapter inside `model` with its head; returns the checkpoint that it needs.

    Args:
        start: the model's starting point: a full checkpoint, or an adapter, which is added.
    """
    update = Update.of(model)
    backbone = start
    if is_adapter(start):
        backbone = Path(adapter_base(start))
        update = Update.read(start).plus(update)
    # A layer that only one of two updates changes has a lower rank; zeros pad it.
    rank = max(a.shape[0] for a, _ in update.layers.values())
    tensors: dict[str, Tensor] = {}
    for name, (a, b) in sorted(update.layers.items()):
        missing = rank - a.shape[0]
        tensors[f"{PREFIX}{name}.lora_A.weight"] = torch.nn.functional.pad(a, (0, 0, 0, missing))
        tensors[f"{PREFIX}{name}.lora_B.weight"] = torch.nn.functional.pad(b, (0, missing))
    head = next(name for name, module in model.named_modules() if module is scalar_head(model))
    for name, parameter in scalar_head(model).named_parameters():
        tensors[f"{PREFIX}{head}.{name}"] = parameter.detach().cpu()
    directory.mkdir(parents=True, exist_ok=True)
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, directory / WEIGHTS, metadata={"format": "pt"})
    (directory / WEIGHTS).chmod(0o644)
    config = {  # other fields keep PEFT's defaults
        "base_model_name_or_path": base_name(backbone, directory),
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": rank,  # scale 1, because B includes the scale
        "lora_dropout": 0.0,
        "modules_to_save": [head],
        "peft_type": "LORA",
        "r": rank,
        "target_modules": sorted(update.layers),
        "task_type": "SEQ_CLS",
    }
    atomic_write_json(directory / ADAPTER_CONFIG, config)
    return backbone
