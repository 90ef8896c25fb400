"""Checks that model, data and disk are ready before a long run starts."""

from __future__ import annotations

import shutil
from pathlib import Path

from alignment.config.load import for_version
from alignment.config.program import ProgramConfig
from alignment.errors import AlignError, ConfigError
from alignment.pipeline.workspace import make_workspace, refuse_another
from alignment.utils.files import read_json

FREE_BYTES = 200 * 2**20


def preflight(program: ProgramConfig) -> None:
    """Check model, data, context length and disk once, before anything is computed.

    Raises:
        ConfigError: base model or data are missing, or answers are longer than the model's
            context; the error names the key.
        AlignError: the workspace is not writable or another program's, or the disk is nearly full.
    """
    refuse_another(program)
    make_workspace(program.workspace)
    free = shutil.disk_usage(program.workspace).free
    if free < FREE_BYTES:
        raise AlignError(
            f"only {free / 2**20:.0f} MiB are free; at least {FREE_BYTES >> 20} MiB are needed",
            where=str(program.workspace),
            remedy="free some space or set another workspace",
        )
    if program.base.source == "path":
        _check_base(program)
        _check_data(program)
    _check_lengths(program)


def _check_base(program: ProgramConfig) -> None:
    from alignment.models.load import check_model_directory

    base = program.base.existing_path()
    try:
        check_model_directory(base)
    except ConfigError as error:
        raise ConfigError(error.message, where="base.path", remedy=error.remedy) from None


def _check_data(program: ProgramConfig) -> None:
    """Check the preference data from which `stages/prepare` makes prompts and demonstrations."""
    location, key = program.data.location(program.intake)
    path = Path(location)
    looks_like_hub = location.count("/") == 1 and not path.parent.exists()
    if not path.exists() and not looks_like_hub:
        raise ConfigError(
            f"no file or directory {path}",
            where=key,
            remedy="give the directory with the preference files",
        )


def _check_lengths(program: ProgramConfig) -> None:
    """Check that answers leave room for a prompt; a stage would find out only after hours."""
    context = _context(program)
    if context is None:
        return
    for version in ("sft", *(item.name for item in program.versions)):
        config = for_version(program, version)
        longest = {
            "sample": config.sample.generation.max_new_tokens,
            "collect": config.collect.generation.max_new_tokens,
            "evaluate": config.evaluate.generation.max_new_tokens,
        }
        if version != "sft" and program.version(version).ppo:
            longest["ppo"] = config.ppo.generation.max_new_tokens
        for key, tokens in longest.items():
            if tokens >= context:
                raise ConfigError(
                    f"answers of {tokens} tokens leave no room for a prompt: the "
                    f"model's context is {context}",
                    where=f"{key}.generation.max_new_tokens",
                    remedy=f"set it well below {context}",
                )


def _context(program: ProgramConfig) -> int | None:
    """Context length of the base model in tokens; None if its config is not here or lacks it."""
    if program.base.source != "path":
        return program.base.pretrain.context
    described = Path(program.base.path or "").expanduser() / "config.json"
    if not described.is_file():
        return None
    values = read_json(described)
    context = values.get("text_config", values).get("max_position_embeddings")
    return None if context is None else int(context)
