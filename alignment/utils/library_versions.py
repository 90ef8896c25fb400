"""Versions of the libraries that a result depends on, for manifests."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

NAMES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "align-rlhf")


@cache
def library_versions() -> dict[str, str]:
    """Library → version, Python included."""
    versions = {"python": platform.python_version()}
    for name in NAMES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
