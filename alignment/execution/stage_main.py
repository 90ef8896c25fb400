"""`python -m alignment.execution.stage_main WORKSPACE VERSION/STAGE`: the child of `run_isolated`.

It does the work of an attempt that the parent opened in the ledger; the parent commits it. If
several processes are started (by `launcher` or `compute.launch`), they share the work and the first
writes.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from alignment.errors import AlignError, StageError
from alignment.execution.failures import kind_of, of_a_lost_process
from alignment.execution.isolated_stage import error_record, write_result
from alignment.execution.runner import Runner
from alignment.execution.stage_log import Logged
from alignment.pipeline.workspace import kept_program
from alignment.utils import distributed
from alignment.utils.graceful_stop import held
from alignment.utils.memory import PeakMemory
from alignment.utils.processes import die_with_this_parent
from alignment.utils.progress import Progress, SilentProgress


def main(workspace: Path, key: str) -> int:
    """Run one stage; its result goes to the partial directory (`write_result`)."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    runner = Runner(kept_program(workspace))
    node = next(node for node in runner.plan if node.key == key)
    fingerprint = runner.fingerprint(node)
    if fingerprint is None:
        raise SystemExit(f"{key}: its inputs are not done")
    partial = runner.ledger.partial_dir(node.version, node.stage, fingerprint)
    try:
        distributed.join(runner.program.compute.device)
        grace = runner.program.orchestration.grace_seconds
        with held(grace, logging.warning), PeakMemory() as memory:
            silent = SilentProgress()
            progress: Progress = Logged(silent) if distributed.is_first() else silent
            runner.execute(node, fingerprint, progress)
    except AlignError as error:
        write_result(partial, error_record(error) | {"failure": kind_of(error)})
        return error.exit_code
    except Exception as error:
        failure = StageError(f"{key} failed: {type(error).__name__}: {error}", where=None)
        lost = distributed.size() > 1 and of_a_lost_process(error)
        write_result(partial, error_record(failure) | {"failure": kind_of(error), "lost": lost})
        raise
    peak_mb = distributed.total(memory.peak_mb)
    if distributed.is_first():
        write_result(partial, {"peak_mb": peak_mb})
    distributed.leave()
    return 0


def run(arguments: Sequence[str]) -> NoReturn:
    """Run the stage that the arguments name, and end this process without winding down.

    Everything is written then. Threads of gloo that still wind down when the interpreter ends
    sometimes abort the process ("terminate called without an active exception").
    """
    die_with_this_parent()  # torchrun's workers would outlive it
    workspace, key = arguments
    code = main(Path(workspace), key)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run(sys.argv[1:])
