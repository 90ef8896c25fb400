"""Loading and saving checkpoints: plain Hugging Face directories, safetensors only, no remote code.

A policy directory is a full checkpoint, or a LoRA adapter (`adapter_config.json`) over the
program's base model. An adapter remembers its base as a path relative to itself, so that a copied
workspace still loads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from alignment.errors import ConfigError

Dtype = Literal["float32", "bfloat16", "float16"]


def resolve_device(name: str) -> torch.device:
    """`auto` is the first GPU or the CPU; anything else is taken as written.

    Raises:
        ConfigError: a GPU is named on a machine that has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"device {name!r} was asked for, but torch sees no GPU",
            where="compute.device",
            remedy="set compute.device to auto or cpu",
        )
    return device


def check_model_directory(path: str) -> None:
    """Fail early, with the reason, if `path` is a local directory that holds no usable model.

    Names that are no local path (`org/name`) pass: they are the hub's to answer for.

    Raises:
        ConfigError: missing directory, no config.json, or weights only as pickle.
    """
    local = Path(path).expanduser()
    if not local.exists():
        looks_like_hub = path.count("/") <= 1 and not path.startswith((".", "/", "~"))
        if looks_like_hub:
            return
        raise ConfigError(f"no model directory at {path}", remedy="give a directory or a hub name")
    if not (local / "config.json").is_file() and not (local / "adapter_config.json").is_file():
        raise ConfigError(
            f"{path} holds no config.json",
            remedy="give the directory that save_pretrained wrote",
        )
    if not any(local.glob("*.safetensors")):
        raise ConfigError(
            f"{path} holds no .safetensors weights",
            remedy="save the model again with safe_serialization; pickles are never loaded",
        )


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint directory or hub name."""
    check_model_directory(str(path))
    tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
    tokenizer.padding_side = "left"
    return tokenizer


def is_adapter(path: str | Path) -> bool:
    """Whether the directory holds a LoRA adapter and not a full checkpoint."""
    return (Path(path) / "adapter_config.json").is_file()


def adapter_base(path: str | Path) -> str:
    """Where the base model of an adapter directory lies; a relative path is resolved against it."""
    from peft import PeftConfig

    base = str(PeftConfig.from_pretrained(str(path)).base_model_name_or_path)
    local = Path(path) / base
    return str(local.resolve()) if local.exists() else base


def load_policy(
    path: str | Path,
    *,
    dtype: Dtype = "float32",
    device: torch.device | str = "cpu",
    merge: bool = True,
    attention: str | None = None,
) -> PreTrainedModel:
    """A causal language model in eval mode.

    Args:
        path: full checkpoint, adapter directory or hub name.
        merge: fold an adapter into its base (`False` returns the PEFT model, adapter trainable).
        attention: `attn_implementation`; `None` leaves transformers' choice.
    """
    check_model_directory(str(path))
    if is_adapter(path):
        from peft import PeftModel

        base = load_policy(adapter_base(path), dtype=dtype, device=device, attention=attention)
        model: Any = PeftModel.from_pretrained(base, str(path), is_trainable=not merge)
        model = model.merge_and_unload() if merge else model
        return model.eval()
    loaded = AutoModelForCausalLM.from_pretrained(
        str(path),
        dtype=getattr(torch, dtype),
        trust_remote_code=False,
        use_safetensors=True,
        **({} if attention is None else {"attn_implementation": attention}),
    )
    return loaded.to(device).eval()


def load_scalar(
    path: str | Path,
    *,
    dtype: Dtype = "float32",
    device: torch.device | str = "cpu",
    attention: str | None = None,
) -> PreTrainedModel:
    """A sequence classifier with one output (a reward model or a critic) in eval mode.

    From a chat checkpoint the scalar head is new: drawn from N(0, 1/(d+1)) as in OpenAI's code
    ("N implementation details", reward model 8), with torch's current random state.
    """
    check_model_directory(str(path))
    if is_adapter(path):
        raise ConfigError(f"{path} is an adapter; merge it before giving it a scalar head")
    config = AutoConfig.from_pretrained(str(path), trust_remote_code=False, num_labels=1)
    fresh = not any("SequenceClassification" in name for name in config.architectures or [])
    if config.pad_token_id is None:
        config.pad_token_id = config.eos_token_id
    model = AutoModelForSequenceClassification.from_pretrained(
        str(path),
        config=config,
        dtype=getattr(torch, dtype),
        trust_remote_code=False,
        use_safetensors=True,
        **({} if attention is None else {"attn_implementation": attention}),
    )
    if fresh:
        head = scalar_head(model)
        torch.nn.init.normal_(head.weight, std=(head.in_features + 1) ** -0.5)
    return model.to(device).eval()


def scalar_head(model: PreTrainedModel) -> torch.nn.Linear:
    """The linear layer that turns hidden states into the scalar."""
    for name in ("score", "classifier"):
        head = getattr(model, name, None)
        if isinstance(head, torch.nn.Linear):
            return head
    raise ConfigError(f"{type(model).__name__} has no scalar head that is a single linear layer")


def backbone(model: PreTrainedModel) -> torch.nn.Module:
    """The transformer below the head: called with ids, it returns hidden states."""
    return getattr(model, model.base_model_prefix)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write a checkpoint that `from_pretrained` loads (safetensors, tokenizer beside it)."""
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory, safe_serialization=True)
    tokenizer.save_pretrained(directory)
