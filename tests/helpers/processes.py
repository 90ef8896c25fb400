"""Runs a module of `tests/helpers`, or of a room that put itself on the path, in processes."""

from __future__ import annotations

import os
import subprocess
import sys


def launch(count: int, module: str, *arguments: object) -> subprocess.Popen[bytes]:
    """Start `python -m module arguments` in `count` processes under the launcher."""
    launcher = [sys.executable, "-m", "alignment.execution.launcher", str(count)]
    return subprocess.Popen(
        [*launcher, module, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def run(count: int, module: str, *arguments: object) -> None:
    """`launch`, and wait for a good end."""
    assert launch(count, module, *arguments).wait(300) == 0
