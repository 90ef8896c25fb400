"""A stage in a process of its own: stages can run side by side, and memory is freed for sure.

The child gets no more than the workspace and the stage's name; both sides read the ledger. It dies
with its parent, and an error it reports is raised here as if the stage had run here. The stage may
also be spread over several processes (`compute.processes`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignment import errors
from alignment.errors import AlignError, StageError
from alignment.pipeline.node import Node
from alignment.utils.files import atomic_write_json, read_json
from alignment.utils.memory import oom_kills
from alignment.utils.processes import die_with_parent

SLACK = 5.0  # seconds to end by itself once its own grace is over
_LOOK_EVERY = 0.2  # seconds
ENDED = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that come from somebody who wants the process to end."""


def run_isolated(
    workspace: Path,
    node: Node,
    partial: Path,
    log: Path,
    *,
    processes: int = 1,
    grace: float = 0.0,
    interrupted: Callable[[], int] = lambda: 0,
) -> float:
    """Run `node` in a child process, or in `processes` of them; returns their peak memory in MB.

    Args:
        grace: seconds that it may go on to its next checkpoint when this process is interrupted.
        interrupted: how often this process was, for a thread that no signal reaches; twice: at
            once.

    Raises:
        KeyboardInterrupt: `interrupted`; the child has ended.
        AlignError: what the stage reported.
        StageError: the child died without a word. Its `failure` is `memory` where the kernel says
            that it killed for want of it; a stage that somebody else killed is not done in smaller
            pieces, which would change its bits.
    """
    for path in partial.glob(_result("*")):
        path.unlink()
    before = oom_kills()
    module = "alignment.execution.stage_main"
    start = (
        ["-m", module]
        if processes == 1
        else ["-m", "alignment.execution.launcher", str(processes), module]
    )
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, *start, str(workspace), node.key],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # At once: without its parent nobody keeps others out of the workspace.
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
    try:
        code = _wait(child, interrupted)
    except BaseException:
        _stop(child, grace, interrupted)
        raise
    records = [read_json(path) for path in partial.glob(_result("*"))]
    oom = before is not None and (oom_kills() or 0) > before
    outcome = interpret(code, records, oom, processes)
    if outcome.error is not None:
        raise outcome.error
    if outcome.died is not None:
        died = StageError(
            f"the process of {node.key} ended with {outcome.died}",
            where=str(log),
            remedy="see the log; `align resume` goes on from the last checkpoint",
        )
        died.failure = outcome.failure
        raise died
    return outcome.peak_mb


@dataclass(frozen=True)
class ChildOutcome:
    """What became of a stage's process: its peak memory, the error it reported, or how it died."""

    peak_mb: float = 0.0
    error: AlignError | None = None
    died: str | None = None
    failure: Literal["memory", "killed"] | None = None
    """Why it died, where somebody killed it."""


def interpret(
    code: int, records: Sequence[dict[str, Any]], oom: bool, processes: int = 1
) -> ChildOutcome:
    """The outcome of one process, or of several under a launcher.

    Args:
        code: exit code; negative for a signal. The launcher tells it as a shell does, by 128 and
            more.
        records: what the processes wrote (`tell`).
        oom: whether the kernel has killed for want of memory meanwhile.
    """
    number = code - 128 if processes > 1 and code > 128 else -code
    ended_by = signal.Signals(number) if number in set(signal.Signals) else None
    reported = [record for record in records if "error" in record]
    # What the others say of one that was killed is that they have lost it; they may even abort.
    lost = processes > 1 and ended_by not in (None, signal.SIGABRT)
    if reported and not lost:
        return ChildOutcome(error=_again(min(reported, key=lambda record: record["at"])))
    if code == 0 and records:
        return ChildOutcome(peak_mb=float(records[0]["peak_mb"]))
    how = f"exit code {code}" if ended_by is None else f"signal {ended_by.name}"
    if ended_by == signal.SIGKILL and oom:
        return ChildOutcome(died=how, failure="memory")
    return ChildOutcome(died=how, failure="killed" if ended_by in ENDED else None)


def tell(partial: Path, record: dict[str, Any]) -> None:
    """In the child: what came of it. Each of several processes has a file of its own."""
    result = partial / _result(os.environ.get("RANK", "0"))
    atomic_write_json(result, record | {"at": time.time()})


def _result(rank: str) -> str:
    return f"result-{rank}.json"  # in the partial directory, beside `out` and `scratch`


def _again(record: dict[str, Any]) -> AlignError:
    kind = getattr(errors, record["kind"], StageError)
    error: AlignError = kind(record["error"], where=record["where"], remedy=record["remedy"])
    error.failure = record.get("failure")
    return error


def described(error: AlignError) -> dict[str, str | None]:
    """An error as JSON, to be raised again on the other side."""
    return {
        "kind": type(error).__name__,
        "error": error.message,
        "where": error.where,
        "remedy": error.remedy,
    }


def _wait(child: subprocess.Popen[bytes], interrupted: Callable[[], int]) -> int:
    """The child's exit code."""
    while not interrupted():
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(_LOOK_EVERY)
    raise KeyboardInterrupt


def _stop(child: subprocess.Popen[bytes], grace: float, interrupted: Callable[[], int]) -> None:
    """End the child, and whatever it started; at once when interrupted again."""
    try:
        child.terminate()  # a launcher tells those that it started
        until = time.monotonic() + grace + SLACK
        while interrupted() < 2 and time.monotonic() < until:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_LOOK_EVERY)
                break
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
