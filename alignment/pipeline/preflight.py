"""What must be there before a long run starts: model, data, disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from alignment.config.load import for_version
from alignment.config.program import ProgramConfig
from alignment.errors import AlignError, ConfigError
from alignment.pipeline.workspace import make_workspace
from alignment.utils.files import read_json

FREE_BYTES = 200 * 2**20


def preflight(program: ProgramConfig) -> None:
    """Check the outside world once, before anything is computed.

    Raises:
        ConfigError: base model or data missing, or answers longer than the model's context; names
            the key.
        AlignError: workspace not writable, or the disk is nearly full.
    """
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
    if not program.base.path:
        raise ConfigError(
            "no base model is named",
            where="base.path",
            remedy="--set base.path=DIRECTORY (or a hub name)",
        )
    from alignment.models.load import check_model_directory

    try:
        check_model_directory(program.base.path)
    except ConfigError as error:
        raise ConfigError(error.message, where="base.path", remedy=error.remedy) from None


def _check_data(program: ProgramConfig) -> None:
    """Prompts and demonstrations are made from real preferences (`stages/prepare`)."""
    split = program.intake.source == "split"
    key = "intake.path" if split and program.data.path is None else "data.path"
    given = program.data.path or (program.intake.path if split else None)
    if given is None:
        raise ConfigError(
            "no preference data is named to make prompts and demonstrations from",
            where=key,
            remedy=f"--set {key}=FILE_OR_DIRECTORY",
        )
    path = Path(given)
    looks_like_hub = given.count("/") == 1 and not path.parent.exists()
    if not path.exists() and not looks_like_hub:
        raise ConfigError(
            f"no file or directory {path}",
            where=key,
            remedy="give the directory with the preference files",
        )


def _check_lengths(program: ProgramConfig) -> None:
    """Before the stage that would find it out after hours."""
    context = _context(program)
    if context is None:
        return
    for version in ("sft", *(item.name for item in program.versions)):
        seen = for_version(program, version)
        longest = {
            "sample": seen.sample.generation.max_new_tokens,
            "collect": seen.collect.generation.max_new_tokens,
            "evaluate": seen.evaluate.generation.max_new_tokens,
        }
        if version != "sft" and program.version(version).ppo:
            longest["ppo"] = seen.ppo.generation.max_new_tokens
        for key, tokens in longest.items():
            if tokens >= context:
                raise ConfigError(
                    f"answers of {tokens} tokens leave no room for a prompt: the "
                    f"model's context is {context}",
                    where=f"{key}.generation.max_new_tokens",
                    remedy=f"set it well below {context}",
                )


def _context(program: ProgramConfig) -> int | None:
    """Longest sequence of the base model; None where it does not say, or is still on a hub."""
    if program.base.source != "path":
        return program.base.pretrain.context
    described = Path(program.base.path or "") / "config.json"
    if not described.is_file():
        return None
    values = read_json(described)
    context = values.get("text_config", values).get("max_position_embeddings")
    return None if context is None else int(context)
