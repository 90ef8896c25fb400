"""`python -m alignment.execution.stage_main WORKSPACE VERSION/STAGE`: the other side of `isolate`.

Does the work of an attempt that the parent has opened in the ledger; the parent commits it.
Started in several processes (`launcher`, torchrun), they share the work and the first one writes.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from alignment.errors import AlignError, StageError
from alignment.execution.failures import kind_of
from alignment.execution.isolated_stage import described, tell
from alignment.execution.runner import Runner
from alignment.pipeline.workspace import kept_program
from alignment.utils import distributed
from alignment.utils.graceful_stop import held
from alignment.utils.memory import PeakMemory
from alignment.utils.progress import SilentProgress


class LogProgress:
    """Progress as lines of the log."""

    def begin(self, label: str, total: int | None = None, unit: str = "it") -> None:
        logging.info("%s: %s %s", label, "?" if total is None else total, unit)

    def advance(self, amount: int = 1, **figures: float) -> None:
        return None

    def say(self, message: str) -> None:
        logging.info(message)


def main(workspace: Path, key: str) -> int:
    """Run one stage; the verdict goes to the partial directory (`isolate.tell`)."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    runner = Runner(kept_program(workspace))
    node = next(node for node in runner.plan if node.key == key)
    fingerprint = runner.fingerprint(node)
    if fingerprint is None:
        raise SystemExit(f"{key}: what it needs is not done")
    partial = runner.ledger.partial_dir(node.version, node.stage, fingerprint)
    try:
        distributed.join(runner.program.compute.device)
        grace = runner.program.orchestration.grace_seconds
        with held(grace, logging.warning), PeakMemory() as memory:
            progress = LogProgress() if distributed.is_first() else SilentProgress()
            runner.execute(node, fingerprint, progress)
    except AlignError as error:
        tell(partial, described(error) | {"failure": kind_of(error)})
        return error.exit_code
    except Exception as error:
        told = StageError(f"{key} failed: {type(error).__name__}: {error}", where=None)
        tell(partial, described(told) | {"failure": kind_of(error)})
        raise
    peak_mb = distributed.total(memory.peak_mb)
    if distributed.is_first():
        tell(partial, {"peak_mb": peak_mb})
    distributed.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
