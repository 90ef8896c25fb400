"""Imports a model into a workspace: safetensors, configuration and tokenizer only."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from alignment.errors import ConfigError
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.checkpoint_files import (
    check_tokenizer_files,
    check_whole,
    stored_parameters,
)
from alignment.utils.files import atomic_write_json, read_json

# The files of a checkpoint. All others (pickles, code, images, optimiser states) are not copied.
MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE*",
)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def import_checkpoint(
    source: str, target: Path, *, where: str, revision: str | None = None
) -> list[str]:
    """Copy or download the model at `source` into the new directory `target` and check it.

    Args:
        revision: branch, tag or commit of a hub name.
        where: the setting that gives `source`, for errors.

    Returns:
        What a person should know of its chat template, a sentence each.

    Raises:
        ConfigError: there is no such model, its weights are pickles only, it is an adapter, it has
            no tokenizer with an EOS token, a chat template that renders no dialogue, or it does
            not load as a causal language model.
    """
    try:
        local = Path(source).expanduser()
        directory = local if local.exists() else _download(source, revision)
        _check(directory, source)
        target.mkdir(parents=True, exist_ok=True)
        for pattern in MODEL_FILES:
            for file in sorted(directory.glob(pattern)):
                _place(file, target / file.name)
        _drop_code(target / "config.json")
        return _test_load(target, source)
    except ConfigError as error:
        error.where = where
        raise


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(MODEL_FILES)))
    except (HFValidationError, RepositoryNotFoundError):
        problem = f"there is no directory and no hub model {name!r}"
    except (OSError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        problem = f"there is no directory {name!r}, and the hub could not be asked: {reason}"
    raise ConfigError(
        problem,
        remedy="give a directory with config.json, *.safetensors and a tokenizer",
    ) from None


def _check(directory: Path, source: str) -> None:
    if not directory.is_dir():
        raise ConfigError(f"{source} is a file", remedy="give its directory")
    if (directory / "adapter_config.json").is_file():
        raise ConfigError(
            f"{source} is an adapter, not a full model",
            remedy="merge it into its base first (merge_and_unload), then save_pretrained",
        )
    if not (directory / "config.json").is_file():
        raise ConfigError(
            f"{source} holds no config.json",
            remedy="give the directory that save_pretrained wrote",
        )
    if not any(directory.glob("*.safetensors")):
        pickles = [file.name for pattern in PICKLES for file in directory.glob(pattern)]
        content = f"only pickled weights ({pickles[0]})" if pickles else "no weights"
        raise ConfigError(
            f"{source} holds {content}; .safetensors are needed",
            remedy="load it in an environment where you trust it and save_pretrained it again; "
            "pickles can run code and are never loaded here",
        )
    check_whole(directory)
    stored_parameters(directory)
    check_tokenizer_files(directory)


def _place(file: Path, target: Path) -> None:
    """A hard link where the file system allows it and the file is the user's to link, else a copy.

    Weights are linked only if nobody can write to them: a linked file changes with its source.
    """
    real = file.resolve()
    if not os.access(real, os.W_OK):
        try:
            os.link(real, target)
            return
        except OSError:
            pass  # another file system, or links are not allowed: copying is as good
    shutil.copyfile(real, target)


def _drop_code(config: Path) -> None:
    """Remove references to code that would be downloaded and run."""
    values = read_json(config)
    if values.pop("auto_map", None) is not None:
        atomic_write_json(config, values)


def _test_load(directory: Path, source: str) -> list[str]:
    """Load the imported model once, on the CPU; returns notes on its chat template."""
    from safetensors import SafetensorError

    from alignment.models.load import load_policy, load_tokenizer

    try:
        tokenizer = load_tokenizer(directory)
        model = load_policy(directory)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"{source} does not load as a causal language model with a tokenizer: {reason}",
        ) from None
    if tokenizer.eos_token_id is None:
        raise ConfigError(
            f"the tokenizer of {source} has no EOS token, so an answer could never end",
            remedy="set eos_token in tokenizer_config.json",
        )
    rows = next(iter(model.get_input_embeddings().parameters())).shape[0]
    if len(tokenizer) > rows:
        raise ConfigError(
            f"the tokenizer of {source} has {len(tokenizer)} tokens, the model only {rows}",
            remedy="resize the model's embeddings (resize_token_embeddings) and save it again",
        )
    template = ChatRenderer(tokenizer).template
    return [] if template is None else template.notes(str(tokenizer.eos_token))
