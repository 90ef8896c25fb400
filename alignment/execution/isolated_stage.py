"""Runs a stage in its own process, so that stages can run in parallel and all memory is freed.

The child receives only the workspace and the stage's name; both sides read the ledger. The child
dies with its parent. An error that it reports is raised here as if the stage had run here. A stage
can also be spread over several processes (`compute.processes`), on several machines
(`compute.launch`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from alignment import errors
from alignment.config.compute import ComputeConfig
from alignment.errors import AlignError, ConfigError, StageError
from alignment.execution.launcher import Child
from alignment.execution.start_command import start_command
from alignment.execution.warm_start import can_fork, fork_module
from alignment.pipeline.node import Node
from alignment.utils.files import atomic_write_json, read_json
from alignment.utils.memory import oom_kills
from alignment.utils.processes import die_with_parent

SLACK = 5.0  # seconds that the child gets to exit after its own grace period
_LOOK_EVERY = 0.2  # seconds
ENDED = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals by which somebody ends a process on purpose."""


def run_isolated(
    workspace: Path,
    node: Node,
    partial: Path,
    log: Path,
    *,
    compute: ComputeConfig,
    processes: int = 1,
    grace: float = 0.0,
    interrupted: Callable[[], int] = lambda: 0,
) -> float:
    """Run `node` in `processes` child processes; returns their peak memory in MB.

    Args:
        node: the stage to run; its attempt is open in the ledger.
        partial: the attempt's directory, where the child writes its result.
        compute: says how several processes are started.
        grace: seconds that the child may run on to its next checkpoint after an interrupt.
        interrupted: how often this process was interrupted; for threads, which receive no signals.
            At two the child is killed at once.

    Raises:
        KeyboardInterrupt: `interrupted` is not 0; the child has ended.
        AlignError: the stage reported this error, or `compute.launch` names no program.
        StageError: the child died without a report. `failure` is `memory` only if the kernel
            counts an out-of-memory kill: a stage that somebody else killed must not be retried in
            smaller pieces, which would change its bits.
    """
    for path in partial.glob(_result_name("*")):
        path.unlink()
    before = oom_kills()
    module = "alignment.execution.stage_main"
    arguments = [str(workspace), node.key]
    child = _fork(module, arguments, processes, log) if can_fork(compute) else None
    if child is None:
        child = _start(start_command(module, arguments, processes, compute), log)
    try:
        code = _wait(child, interrupted)
    except BaseException:
        _stop(child, grace, interrupted)
        raise
    records = [read_json(path) for path in partial.glob(_result_name("*"))]
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


def _fork(module: str, arguments: Sequence[str], processes: int, log: Path) -> Child | None:
    try:
        return fork_module(module, arguments, processes, log)
    except (OSError, EOFError) as error:  # its socket is in $TMPDIR: full, or too long a path
        logging.getLogger("alignment").warning(
            f"no fork server ({error!r}): the stage starts anew, which takes seconds more"
        )
        return None


def _start(command: Sequence[str], log: Path) -> Child:
    with log.open("ab") as output:
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # SIGKILL, because once the parent is gone nobody holds the workspace lock.
                preexec_fn=die_with_parent(signal.SIGKILL),
            )
        except OSError as error:
            raise ConfigError(
                f"{command[0]!r} cannot be started: {error.strerror}", where="compute.launch"
            ) from error


@dataclass(frozen=True)
class ChildOutcome:
    """How a stage's process ended: its peak memory, the error it reported, or how it died."""

    peak_mb: float = 0.0
    error: AlignError | None = None
    died: str | None = None
    failure: Literal["memory", "killed"] | None = None
    """Why it died, if it was killed."""


def interpret(
    code: int, records: Sequence[dict[str, Any]], oom: bool, processes: int = 1
) -> ChildOutcome:
    """The outcome of one process, or of several under a launcher.

    Args:
        code: exit code; negative for a signal. A launcher returns 128 plus the signal instead, as
            shells do.
        records: the results that the processes wrote (`write_result`).
        oom: whether the kernel killed a process for lack of memory meanwhile.
        processes: how many processes shared the stage; more than 1 had a launcher.
    """
    number = code - 128 if processes > 1 and code > 128 else -code
    ended_by = signal.Signals(number) if number in set(signal.Signals) else None
    reported = [record for record in records if "error" in record]
    # If one process was killed, the others only report a lost peer, or abort.
    killed = processes > 1 and ended_by not in (None, signal.SIGABRT)
    causes = [record for record in reported if not record.get("lost")]
    if causes and not killed:
        return ChildOutcome(error=_rebuild(min(causes, key=lambda record: record["at"])))
    if reported and not killed:
        first = min(reported, key=lambda record: record["at"])
        gone = sorted(set(range(processes)) - {record["rank"] for record in reported})
        if not gone:
            return ChildOutcome(error=_rebuild(first))
        numbers = ", ".join(map(str, gone))
        how = f"the loss of a process that told nothing (rank {numbers}): {first['error']}"
        return ChildOutcome(died=how, failure="memory" if oom else "killed")
    if code == 0 and records:
        return ChildOutcome(peak_mb=float(records[0]["peak_mb"]))
    how = f"exit code {code}" if ended_by is None else f"signal {ended_by.name}"
    if ended_by == signal.SIGKILL and oom:
        return ChildOutcome(died=how, failure="memory")
    return ChildOutcome(died=how, failure="killed" if ended_by in ENDED else None)


def write_result(partial: Path, record: dict[str, Any]) -> None:
    """In the child: write its result. Each of several processes has its own file."""
    rank = int(os.environ.get("RANK", "0"))
    atomic_write_json(partial / _result_name(str(rank)), record | {"at": time.time(), "rank": rank})


def _result_name(rank: str) -> str:
    return f"result-{rank}.json"  # in the partial directory, beside `out` and `scratch`


def _rebuild(record: dict[str, Any]) -> AlignError:
    kind = getattr(errors, record["kind"], StageError)
    error: AlignError = kind(record["error"], where=record["where"], remedy=record["remedy"])
    error.failure = record.get("failure")
    return error


def error_record(error: AlignError) -> dict[str, str | None]:
    """An error as JSON, from which the parent raises it again."""
    return {
        "kind": type(error).__name__,
        "error": error.message,
        "where": error.where,
        "remedy": error.remedy,
    }


def _wait(child: Child, interrupted: Callable[[], int]) -> int:
    """Wait for the child; returns its exit code."""
    while not interrupted():
        with contextlib.suppress(subprocess.TimeoutExpired):
            return child.wait(_LOOK_EVERY)
    raise KeyboardInterrupt


def _stop(child: Child, grace: float, interrupted: Callable[[], int]) -> None:
    """End the child and the processes it started; at once when interrupted again."""
    try:
        child.terminate()  # a launcher passes this on to its children
        until = time.monotonic() + grace + SLACK
        while interrupted() < 2 and time.monotonic() < until:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_LOOK_EVERY)
                break
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.kill()  # a fork that had no session of its own yet
        child.wait()
