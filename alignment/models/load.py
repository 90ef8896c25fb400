"""Loading and saving checkpoints: plain Hugging Face directories, safetensors only, no remote code.

A policy directory is a full checkpoint, or a LoRA adapter over one (see `adapters`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from alignment.errors import ConfigError
from alignment.models.adapters import adapter_base, is_adapter, is_reward_adapter
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.chat_template import freeze
from alignment.models.checkpoint_files import check_whole, stored_parameters, stored_tensor
from alignment.models.master_weights import cast_parameters

# transformers' progress bars would interfere with ours.
logging.disable_progress_bar()

Dtype = Literal["float32", "bfloat16", "float16"]


def resolve_device(name: str) -> torch.device:
    """`auto` is the first GPU or the CPU; anything else is taken as written.

    Raises:
        ConfigError: a GPU is requested on a machine without one.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"device {name!r} was requested, but torch sees no GPU",
            where="compute.device",
            remedy="set compute.device to auto or cpu",
        )
    return device


def check_model_directory(path: str) -> None:
    """Fail early if `path` is a local directory without a usable model.

    Hub names (`org/name`) pass without a check.

    Raises:
        ConfigError: missing directory, no config.json, weights only as pickle, or a file that is
            empty or a Git LFS pointer.
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
    check_whole(local)


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint directory or hub name, with a fixed date in its template."""
    check_model_directory(str(path))
    tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
    tokenizer.padding_side = "left"
    freeze(tokenizer)
    return tokenizer


def weight_bytes(path: str | Path, dtype: Dtype) -> int:
    """Bytes that the weights of a checkpoint take in `dtype`; for an adapter, its base's too."""
    width = 4 if dtype == "float32" else 2
    count = stored_parameters(Path(path))
    base = weight_bytes(adapter_base(path), dtype) if is_adapter(path) else 0
    return width * count + base


def load_policy(
    path: str | Path,
    *,
    dtype: Dtype = "float32",
    device: torch.device | str = "cpu",
    merge: bool = True,
) -> PreTrainedModel:
    """A causal language model in eval mode.

    Args:
        path: full checkpoint, adapter directory or hub name.
        merge: fold an adapter into its base (`False` returns the PEFT model, adapter trainable).
    """
    check_model_directory(str(path))
    if is_adapter(path):
        from peft import PeftModel

        # Merged in float32: a base in bfloat16 would be rounded twice.
        base = load_policy(adapter_base(path), dtype="float32" if merge else dtype, device=device)
        with warnings.catch_warnings():  # of transformers' names that peft still uses
            warnings.simplefilter("ignore", FutureWarning)
            model: Any = PeftModel.from_pretrained(base, str(path), is_trainable=not merge)
            # peft froze the base under the adapter; merged, it is an ordinary model again.
            if merge:
                model = model.merge_and_unload().requires_grad_(True)
                cast_parameters(model, getattr(torch, dtype))
        return cast(PreTrainedModel, model.eval())
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        str(path),
        dtype=getattr(torch, dtype),
        trust_remote_code=False,
        use_safetensors=True,
    )
    _without_router_logits(loaded)
    return cast(PreTrainedModel, loaded.to(device).eval())


def load_scalar(
    path: str | Path, *, dtype: Dtype = "float32", device: torch.device | str = "cpu"
) -> PreTrainedModel:
    """A sequence classifier with one output (a reward model or a critic) in eval mode.

    The head is in float32 whatever `dtype` is. A reward adapter is merged into its base. A chat
    checkpoint gets a new head, drawn from N(0, 1/(d+1)) with torch's current random state, as in
    OpenAI's code ("N implementation details", reward model 8).
    """
    check_model_directory(str(path))
    if is_reward_adapter(path):
        from peft import PeftModel

        whole: Any = PeftModel.from_pretrained(load_scalar(adapter_base(path)), str(path))
        merged: Any = whole.merge_and_unload().requires_grad_(True)
        _all_but_head(merged, dtype)
        return merged.to(device).eval()  # type: ignore[no-any-return]
    config = AutoConfig.from_pretrained(str(path), trust_remote_code=False, num_labels=1)
    fresh = not any("SequenceClassification" in name for name in config.architectures or [])
    if config.pad_token_id is None:
        eos = config.eos_token_id
        config.pad_token_id = eos[0] if isinstance(eos, list) else eos
    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(
            str(path),
            config=config,
            dtype=getattr(torch, dtype),
            trust_remote_code=False,
            use_safetensors=True,
        )
    _without_router_logits(model)
    head = scalar_head(model).float()
    if fresh:
        draw_head(head.weight)
    elif dtype != "float32":
        stored = stored_tensor(Path(path), "score.weight", "classifier.weight")
        with torch.no_grad():
            head.weight.copy_(stored)
    return cast(PreTrainedModel, model.to(device).eval())


def draw_head(weight: torch.Tensor) -> None:
    """Fill a scalar head (1, d) with a new draw, see `load_scalar`."""
    torch.nn.init.normal_(weight, std=(weight.shape[1] + 1) ** -0.5)


def has_scalar_head(path: str | Path) -> bool:
    """Whether the model in a directory is a sequence classifier, full or adapter."""
    if is_adapter(path):
        return is_reward_adapter(path)
    config = AutoConfig.from_pretrained(str(path), trust_remote_code=False)
    return any("SequenceClassification" in name for name in config.architectures or [])


def _all_but_head(model: PreTrainedModel, dtype: Dtype) -> None:
    """Have a classifier compute in `dtype`, except for its head."""
    head = scalar_head(model)
    weight = head.weight.detach().clone()
    cast_parameters(model, getattr(torch, dtype))
    head.float()
    with torch.no_grad():
        head.weight.copy_(weight)


def _without_router_logits(model: Any) -> None:
    """Keep a mixture of experts from computing its balancing loss where nobody reads it.

    Some checkpoints say `output_router_logits: true`, with which decoding fails. The trainer of
    fine-tuning switches it on for itself.
    """
    described = model.config.get_text_config()
    if getattr(described, "output_router_logits", False):
        described.output_router_logits = False


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' warnings about what we do on purpose: a new head, a pad token."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def scalar_head(model: PreTrainedModel) -> torch.nn.Linear:
    """The linear layer that maps hidden states to the scalar.

    Raises:
        ConfigError: the model has no such layer.
    """
    for name in ("score", "classifier"):
        head = getattr(model, name, None)
        if isinstance(head, torch.nn.Linear):
            return head
    raise ConfigError(f"{type(model).__name__} has no scalar head that is a single linear layer")


def context_length(config: Any) -> int | None:
    """Most tokens that a model of this configuration takes; None if it does not say."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def context_of(path: str | Path) -> int | None:
    """Most tokens that the model in a directory, full or adapter, takes; None if it does not say.

    Raises:
        ConfigError: there is no model, or its config.json cannot be read.
    """
    check_model_directory(str(path))
    described = adapter_base(path) if is_adapter(path) else path
    try:
        config = AutoConfig.from_pretrained(str(described), trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"the config.json of {path} cannot be read: {reason}") from None
    return context_length(config)


def backbone(model: PreTrainedModel) -> torch.nn.Module:
    """The transformer without its head; it maps ids to hidden states."""
    below: torch.nn.Module = getattr(model, model.base_model_prefix)
    return below


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    directory: Path,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a checkpoint that `from_pretrained` loads (safetensors, tokenizer beside it).

    `weights` are the model's, where it is sharded and does not hold them itself. Its generation
    config stops at the end that the chat template writes after answers.
    """
    directory.mkdir(parents=True, exist_ok=True)
    settings = getattr(model, "generation_config", None)
    if settings is not None and tokenizer.chat_template:
        end = ChatRenderer(tokenizer).end
        stops = settings.eos_token_id
        stops = [stops] if isinstance(stops, int) else list(stops or [tokenizer.eos_token_id])
        if end not in stops:
            settings.eos_token_id = [*stops, end]
    model.save_pretrained(directory, state_dict=weights)
    tokenizer.save_pretrained(directory)
    for file in directory.glob("*.safetensors"):
        file.chmod(0o644)  # safetensors gives the owner alone access
