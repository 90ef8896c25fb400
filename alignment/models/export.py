"""Exports a version as a plain Hugging Face directory that does not need this project."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from alignment.errors import AlignError, ConfigError
from alignment.models.adapters import is_adapter
from alignment.models.chat_renderer import TRANSCRIPT_TEMPLATE
from alignment.models.import_checkpoint import MODEL_FILES
from alignment.models.load import (
    Dtype,
    check_model_directory,
    load_policy,
    load_tokenizer,
    save_model,
)


def export_policy(policy_dir: Path, target: Path, dtype: Dtype | None = None) -> Path:
    """Write the policy at `policy_dir` to `target` atomically.

    Adapters are merged. A tokenizer without a chat template gets the plain transcript as template,
    so that `apply_chat_template` renders prompts as in training.

    Args:
        policy_dir: model directory, or a stage directory with one in `model/`.
        target: new or empty directory.
        dtype: number format of the weights; None keeps that of the version, float32.

    Returns:
        The directory written.

    Raises:
        ConfigError: there is no model at `policy_dir`.
        AlignError: `target` is not empty, or cannot be written.
    """
    source = policy_dir / "model" if (policy_dir / "model").is_dir() else policy_dir
    if not source.is_dir():
        raise ConfigError(f"no model directory at {policy_dir}", remedy="see `align status`")
    check_model_directory(str(source))
    target = target.expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise AlignError(
            f"{target} exists and is not an empty directory",
            remedy="name a new directory; nothing is overwritten",
        )
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        _write(source, partial, dtype)
        partial.rename(target)  # over an empty directory this is allowed
    except OSError as error:
        raise AlignError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _write(source: Path, target: Path, dtype: Dtype | None) -> None:
    tokenizer = load_tokenizer(source)
    bare = tokenizer.chat_template is None
    if bare:
        bos = "{{ bos_token }}" if tokenizer.bos_token_id is not None else ""
        tokenizer.chat_template = TRANSCRIPT_TEMPLATE.replace("{{ bos_token }}", bos)
    if dtype is not None or is_adapter(source):
        save_model(load_policy(source, dtype=dtype or "float32"), tokenizer, target)
        return
    for pattern in MODEL_FILES:
        for file in sorted(source.glob(pattern)):
            shutil.copyfile(file, target / file.name)
    if bare:
        tokenizer.save_pretrained(target)
