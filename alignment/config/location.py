"""Paths in settings: `~` is the home directory; variables are a shell's, and none reads them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from alignment.errors import ConfigError

_VARIABLE = re.compile(r"\$[\w{(]")
_HOME = re.compile(r"(^|:/*)~")  # also after the scheme of an address


def expanded(path: str) -> str:
    """`path` with `~` and `~user` replaced by that home directory.

    Raises:
        ValueError: it names a variable, or the home of a user who is not known.
    """
    if _VARIABLE.search(path):
        raise ValueError(f"{path!r}: variables are not replaced here; write the path out")
    whole = os.path.expanduser(path)  # noqa: PTH111 - "hub/name" and "./x" stay as they are
    if whole.startswith("~"):
        raise ValueError(f"{path!r}: there is no such home directory; write the path out")
    return whole


def written_out(address: str) -> str:
    """`address`, an URI or a path, if it needs no shell to be read.

    Raises:
        ValueError: it names a variable, or a home directory by `~`.
    """
    if _HOME.search(address):
        raise ValueError(f"{address!r}: `~` is not replaced in an address; write the path out")
    return expanded(address)


def _as_given(path: str) -> str:
    expanded(path)
    return path


Location = Annotated[str, AfterValidator(expanded)]
"""A path, with `~` replaced."""
Checkpoint = Annotated[str, AfterValidator(_as_given)]
"""A model's directory, a hub name or a word. It is kept as it is written, for finished stages know
it so; who reads it replaces `~`."""


def given_by(variable: str) -> str | None:
    """The path in an environment variable, with `~` replaced; None if it is not set or empty.

    Raises:
        ConfigError: it cannot be read without a shell.
    """
    value = os.environ.get(variable)
    try:
        return expanded(value) if value else None
    except ValueError as error:
        raise ConfigError(str(error), where=f"the environment: {variable}") from None


def user_cache() -> Path:
    """Where what is made once for this machine is kept, for all programs: `$ALIGN_CACHE_DIR`, else
    `$XDG_CACHE_HOME/align`, else `~/.cache/align`."""
    own = given_by("ALIGN_CACHE_DIR")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "align"
