"""`python -m alignment.stages.run WORKSPACE VERSION/STAGE`: the other side of `isolate`.

Does the work of an attempt that the parent has opened in the ledger; the parent commits it.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from alignment.config.load import check_program
from alignment.errors import AlignError
from alignment.files import atomic_write_json, read_json
from alignment.isolate import RESULT, described
from alignment.memory import PeakMemory
from alignment.runner import Runner


class LogProgress:
    """Progress as lines of the log."""

    def begin(self, label: str, total: int | None = None, unit: str = "it") -> None:
        logging.info("%s: %s %s", label, "?" if total is None else total, unit)

    def advance(self, amount: int = 1, **figures: float) -> None:
        return None

    def say(self, message: str) -> None:
        logging.info(message)


def main(workspace: Path, key: str) -> int:
    """Run one stage; the verdict goes to `result.json` in the partial directory."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    values = read_json(workspace / "program.json") | {"workspace": str(workspace)}
    runner = Runner(check_program(values))
    node = next(node for node in runner.plan if node.key == key)
    fingerprint = runner.fingerprint(node)
    if fingerprint is None:
        raise SystemExit(f"{key}: what it needs is not done")
    result = runner.ledger.partial_dir(node.version, node.stage, fingerprint) / RESULT
    try:
        with PeakMemory() as memory:
            runner.execute(node, fingerprint, LogProgress())
    except AlignError as error:
        atomic_write_json(result, described(error))
        return error.exit_code
    atomic_write_json(result, {"peak_mb": memory.peak_mb})
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
