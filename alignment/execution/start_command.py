"""The command that starts the processes of a stage."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence

from alignment.config.compute import COMMAND, ComputeConfig


def start_command(
    module: str, arguments: Sequence[str], processes: int, compute: ComputeConfig
) -> list[str]:
    """The command that runs `python -m module arguments` in so many processes.

    Of `compute.launch` each word is filled in by itself and its environment variables are put in;
    no shell reads it, so that the command itself is our child and dies with us.
    """
    run = ["-m", module, *arguments]
    if processes == 1:
        return [sys.executable, *run]
    if compute.launch is None:
        return [sys.executable, "-m", "alignment.execution.launcher", str(processes), *run[1:]]
    values = {"nodes": compute.nodes, "per_node": processes // compute.nodes}
    words: list[str] = []
    for word in shlex.split(compute.launch):
        words += run if word == COMMAND else [os.path.expandvars(word.format(**values))]
    return words
