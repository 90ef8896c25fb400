"""Runs a benchmark in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any


def last_json(command: Sequence[str], more: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a command; the last line of its output that is a JSON object.

    Args:
        more: variables of the environment beside those of this process.

    Raises:
        SystemExit: the command failed or printed no such line; with the end of what it said.
    """
    environment = {**os.environ, **(more or {})}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found
