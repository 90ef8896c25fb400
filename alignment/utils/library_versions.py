"""Versions of the libraries a result depends on, for manifests."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

NAMES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "align-rlhf")


@cache
def library_versions() -> dict[str, str]:
    """Library → version, Python included."""
    found = {"python": platform.python_version()}
    for name in NAMES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
