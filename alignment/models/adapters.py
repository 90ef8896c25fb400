"""LoRA adapters: a low-rank update of a frozen full checkpoint.

An adapter names its base by a path relative to the nearest common parent directory, for example
`base/pretrain/1f0c…/model` below a workspace's `versions/`. Loading searches the parents of the
adapter for that path. A copied or moved workspace therefore still loads, and the name does not
depend on the workspace's location.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignment.config.lora import LoraConfig as LoraSettings
from alignment.errors import ConfigError
from alignment.utils.files import atomic_write_json, read_json

ADAPTER_CONFIG = "adapter_config.json"


def is_adapter(path: str | Path) -> bool:
    """Whether the directory holds a LoRA adapter and not a full checkpoint."""
    return (Path(path) / ADAPTER_CONFIG).is_file()


def is_reward_adapter(path: str | Path) -> bool:
    """Whether the directory holds an adapter with a scalar head."""
    return is_adapter(path) and read_json(Path(path) / ADAPTER_CONFIG).get("task_type") == "SEQ_CLS"


def adapter_base(path: str | Path) -> str:
    """The full checkpoint under an adapter directory, as an absolute path.

    Raises:
        ConfigError: the base cannot be found.
    """
    here = Path(path).resolve()
    name = str(read_json(here / ADAPTER_CONFIG)["base_model_name_or_path"])
    for directory in (here, *here.parents):
        candidate = directory / name
        if (candidate / "config.json").is_file():
            return str(candidate)
    raise ConfigError(
        f"the base model {name} of this adapter is missing",
        where=str(path),
        remedy="copy the whole workspace, or export the version, which merges its adapter",
    )


def base_name(base: str | Path, directory: Path) -> str:
    """The name of a base in an adapter's configuration: relative to their common parent."""
    source = Path(base).resolve()
    common = os.path.commonpath([source, directory.resolve()])
    return source.relative_to(common).as_posix()


def unknown_targets(directory: Path, config: LoraSettings) -> list[str]:
    """The `target_modules` that name no layer of the checkpoint in `directory`."""
    from safetensors import safe_open

    layers: set[str] = set()
    for path in directory.glob("*.safetensors"):
        with safe_open(path, framework="np") as weights:
            layers |= {name.removesuffix(".weight") for name in weights.keys()}  # noqa: SIM118
    return [
        target
        for target in config.target_modules
        if target != "all-linear" and not any(f".{name}".endswith(f".{target}") for name in layers)
    ]


def lora_config(config: LoraSettings, **more: Any) -> Any:
    """peft's configuration of a new adapter; `more` are other fields of it."""
    from peft import LoraConfig

    names = list(config.target_modules)
    return LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,  # type: ignore[arg-type]
        lora_dropout=config.dropout,
        target_modules="all-linear" if names == ["all-linear"] else names,
        **more,
    )


@contextmanager
def drawing(seed: int, *, where: str) -> Iterator[None]:
    """For adding adapters in the block: they are drawn from `seed`.

    Args:
        where: the setting `lora`, for the error.

    Raises:
        ConfigError: a target module is not in the model.
    """
    import torch

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        torch.manual_seed(seed)
        warnings.simplefilter("ignore", FutureWarning)  # of transformers' names that peft uses
        # Of GPT-2's transposed layers, which peft recognises and handles.
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        try:
            yield
        except ValueError as error:
            raise ConfigError(
                f"no adapter fits this model: {error}",
                where=f"{where}.target_modules",
                remedy="use all-linear, or names of layers of this architecture",
            ) from None


def add_adapter(model: PreTrainedModel, config: LoraSettings, *, seed: int) -> Any:
    """Freeze `model` and add a new adapter, whose update starts at zero.

    Raises:
        ConfigError: a target module is not in the model.
    """
    from peft import get_peft_model

    with drawing(seed, where="finetune lora"):
        return get_peft_model(model, lora_config(config, task_type="CAUSAL_LM"))


def check_continues(path: str | Path, config: LoraSettings) -> None:
    """Check that training can continue the adapter at `path`.

    Raises:
        ConfigError: its r or alpha differs from the configured one.
    """
    stored = read_json(Path(path) / ADAPTER_CONFIG)
    for name, key, value in (("r", "r", config.r), ("alpha", "lora_alpha", config.alpha)):
        if stored[key] != value:
            raise ConfigError(
                f"adapter {name} {value} differs from {stored[key]} of the version it continues",
                where=f"finetune lora.{name}",
                remedy=f"set {name} to {stored[key]}, or start from a full checkpoint",
            )


def save_adapter(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
    base: str | Path,
    weights: dict[str, Any] | None = None,
) -> None:
    """Write the adapter (safetensors), its tokenizer and the name of its base.

    `weights` are all of the model's, where it is sharded and does not hold them itself.

    The configuration is sorted, because peft keeps target names in a set, whose order differs
    between processes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # "auto" would look for the base by its name to see whether its vocabulary grew. It cannot here.
    model.save_pretrained(
        directory, safe_serialization=True, save_embedding_layers=False, state_dict=weights
    )
    tokenizer.save_pretrained(directory)
    described = read_json(directory / ADAPTER_CONFIG)
    described["base_model_name_or_path"] = base_name(base, directory)
    for key, value in described.items():
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            described[key] = sorted(value)
    atomic_write_json(directory / ADAPTER_CONFIG, dict(sorted(described.items())))
    (directory / "README.md").unlink(missing_ok=True)
    (directory / "adapter_model.safetensors").chmod(0o644)
