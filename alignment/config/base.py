"""The model a program starts from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from alignment.config.finetune import PretrainConfig
from alignment.config.location import Checkpoint
from alignment.config.section import Section
from alignment.errors import ConfigError

Possible = Annotated[PretrainConfig, AfterValidator(PretrainConfig.possible)]


class BaseConfig(Section):
    """Pretrain a small model on the built-in world, or bring your own."""

    source: Literal["world", "path"] = "world"
    """`world`: pretrain on the built-in world's corpus. `path`: take an existing model."""
    path: Checkpoint | None = Field(default=None, min_length=1)
    """`source: path`: a directory with safetensors weights and a tokenizer, or a hub name."""
    revision: str | None = Field(default=None, min_length=1)
    """Branch, tag or commit of a hub name; unset takes the default branch."""
    pretrain: Possible = PretrainConfig()
    """`source: world`: shape and training of the small model."""

    def existing_path(self) -> str:
        """The path of `source: path`.

        Raises:
            ConfigError: none is named.
        """
        if self.path is None:
            raise ConfigError(
                "no base model is named",
                where="base.path",
                remedy="--set base.path=DIRECTORY (or a hub name)",
            )
        return self.path
