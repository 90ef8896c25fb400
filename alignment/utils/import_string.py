"""Imports functions that a config names as `package.module:function`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignment.errors import ConfigError


def source_of(name: str) -> str | None:
    """Path of the file of the function's module; None if there is none."""
    with _beside_the_program():
        try:
            spec = importlib.util.find_spec(name.partition(":")[0])
        except ModuleNotFoundError:
            return None
    return None if spec is None else spec.origin


def load_callable(name: str, where: str) -> Callable[..., Any]:
    """Import the function.

    Args:
        where: the config key, for the error.

    Raises:
        ConfigError: the module or the function does not exist, or it is not callable.
    """
    module, _, path = name.partition(":")
    try:
        with _beside_the_program():
            target: Any = importlib.import_module(module)
        for part in path.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{name} cannot be imported: {error}",
            where=where,
            remedy="write package.module:function, in a file below the directory `align` runs in "
            "or installed",
        ) from None
    if not callable(target):
        raise ConfigError(f"{name} is not a function", where=where)
    function: Callable[..., Any] = target
    return function


@contextmanager
def _beside_the_program() -> Iterator[None]:
    """Search the working directory too: `align` is a script in another directory."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)
