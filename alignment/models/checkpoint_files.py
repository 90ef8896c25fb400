"""The files of a checkpoint: how many parameters, and what is wrong before a library stumbles."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from alignment.errors import ConfigError
from alignment.utils.stand_ins import LONGEST, stand_in

_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.jinja", "merges.txt")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def check_whole(directory: Path) -> None:
    """Check that no file of the checkpoint in `directory` is a stand-in for another, or empty.

    Raises:
        ConfigError: a file is a pointer or a web page, has no bytes, or is a link to nothing.
    """
    files = sorted({file for pattern in _FILES for file in directory.glob(pattern)})
    for file in files:
        if not file.exists():
            raise ConfigError(
                f"{file} is a link to a file that is not there",
                remedy="download the model again, or copy it with its files (cp -rL)",
            )
        if not file.is_file():
            continue
        with file.open("rb") as opened:
            head = opened.read(LONGEST)
        if found := stand_in(head):
            raise ConfigError(f"{file} is {found[0]}, not the file itself", remedy=found[1])
        if not head and file.suffix not in (".jinja", ".txt"):  # no template, no merges
            raise ConfigError(f"{file} is empty", remedy="download the model again")


def stored_parameters(directory: Path) -> int:
    """Parameters in the safetensors files of a checkpoint, by their headers; 0 without such files.

    Raises:
        ConfigError: a file is cut off or damaged.
    """
    total = 0
    for file in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(file, framework="np") as weights:
                names = list(weights.keys())
                total += sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"{file} is cut off or damaged: {error}", remedy="download the model again"
            ) from None
    return total


def stored_tensor(directory: Path, *endings: str) -> Any:
    """The tensor of a checkpoint whose name ends with one of `endings`, in its stored format.

    Raises:
        ConfigError: there is none.
    """
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                if name.endswith(endings):
                    return weights.get_tensor(name)
    raise ConfigError(f"{directory} holds no {' or '.join(endings)}")


def check_tokenizer_files(directory: Path) -> None:
    """Check that the checkpoint in `directory` has the files of a tokenizer.

    Raises:
        ConfigError: it has none; the error names what was looked for.
    """
    if not any((directory / name).is_file() for name in _TOKENIZERS):
        raise ConfigError(
            f"{directory} holds no tokenizer: none of tokenizer.json, tokenizer.model, vocab.json "
            "and vocab.txt",
            remedy="copy the tokenizer's files beside the weights (tokenizer.save_pretrained)",
        )
