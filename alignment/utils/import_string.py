"""Functions that a config names as `package.module:function`."""

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
    """Path of the file that holds the function's module; None where there is none."""
    with _beside_the_program():
        try:
            found = importlib.util.find_spec(name.partition(":")[0])
        except ModuleNotFoundError:
            return None
    return None if found is None else found.origin


def load_callable(name: str, where: str) -> Callable[..., Any]:
    """The function itself.

    Args:
        where: config key, for the error.

    Raises:
        ConfigError: the module or the function is not there.
    """
    module, _, path = name.partition(":")
    try:
        with _beside_the_program():
            found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{name} cannot be imported: {error}",
            where=where,
            remedy="write package.module:function, in a file below the directory `align` runs in "
            "or installed",
        ) from None
    if not callable(found):
        raise ConfigError(f"{name} is no function", where=where)
    function: Callable[..., Any] = found
    return function


@contextmanager
def _beside_the_program() -> Iterator[None]:
    """`align` is a script in another directory: modules are looked for in the working one too."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)
