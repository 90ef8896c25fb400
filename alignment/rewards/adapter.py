"""LoRA for reward models: thin updates and a full scalar head, folded together when done.

The adapter sits inside the model while it trains, so the loop, the layouts and the checkpoints
stay the same; `merge` leaves an ordinary checkpoint that every other room can load.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from alignment.config.finetune import AdapterConfig
from alignment.errors import ConfigError
from alignment.models.load import scalar_head


def inject(model: PreTrainedModel, config: AdapterConfig, *, seed: int) -> None:
    """Freeze all but a fresh adapter and the head; nothing happens for `method: full`.

    Raises:
        ConfigError: a target module is not in the model.
    """
    if config.method == "full":
        return
    from peft import LoraConfig, inject_adapter_in_model

    targets = list(config.target_modules)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
        exclude_modules=["score", "classifier"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(lora, model)
        except ValueError as error:
            raise ConfigError(
                f"no adapter fits this model: {error}",
                where="rewards.adapter.target_modules",
                remedy="use all-linear, or names of layers of this architecture",
            ) from None
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    scalar_head(model).requires_grad_(True)


def dropouts(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The adapter's own dropout modules."""
    found = [module for name, module in model.named_modules() if name.endswith("lora_dropout")]
    return [inner for module in found for inner in module.modules()]


def merge(model: PreTrainedModel) -> None:
    """Fold adapters into the weights they sit on; nothing happens where there are none."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge()  # type: ignore[operator]
            parent, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(parent), leaf, module.get_base_layer())
    for parameter in model.parameters():
        parameter.requires_grad_(True)
