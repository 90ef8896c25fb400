"""A stage in a process of its own: stages can run side by side, and memory is freed for sure.

The child gets no more than the workspace and the stage's name; both sides read the ledger. It dies
with its parent, and an error it reports is raised here as if the stage had run here. The stage may
also be spread over several processes (`compute.processes`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from alignment import errors
from alignment.errors import AlignError, StageError
from alignment.files import read_json
from alignment.plan import Node
from alignment.processes import die_with_parent

RESULT = "result.json"  # in the partial directory, beside `out` and `scratch`
GRACE = 20.0


def run_isolated(
    workspace: Path, node: Node, partial: Path, log: Path, *, processes: int = 1
) -> float:
    """Run `node` in a child process, or in `processes` of them; returns their peak memory in MB.

    Raises:
        AlignError: what the stage reported.
        StageError: the child died without a word.
    """
    result = partial / RESULT
    result.unlink(missing_ok=True)
    module = "alignment.stages.run"
    start = (
        ["-m", module] if processes == 1 else ["-m", "alignment.launcher", str(processes), module]
    )
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, *start, str(workspace), node.key],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )
    try:
        code = child.wait()
    except BaseException:
        _stop(child)
        raise
    told = read_json(result) if result.is_file() else {}
    if "error" in told:
        kind = getattr(errors, told["kind"], StageError)
        error = kind(told["error"], where=told["where"], remedy=told["remedy"])
        error.failure = told.get("failure")
        raise error
    if code or "peak_mb" not in told:
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        died = StageError(
            f"the process of {node.key} ended with {how}",
            where=str(log),
            remedy="see the log; `align resume` goes on from the last checkpoint",
        )
        if code == -signal.SIGKILL:  # what the kernel does to a process that takes all memory
            died.failure = "memory"
        raise died
    result.unlink()
    return float(told["peak_mb"])


def described(error: AlignError) -> dict[str, str | None]:
    """An error as JSON, to be raised again on the other side."""
    return {
        "kind": type(error).__name__,
        "error": error.message,
        "where": error.where,
        "remedy": error.remedy,
    }


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End the child and whatever it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
            child.wait(GRACE)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
        return
