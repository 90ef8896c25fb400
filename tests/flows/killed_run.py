"""Run as a script by test_killed: a program of invented stages through Prefect and MLflow.

Arguments: workspace, key of a stage that waits for ever (or `-`).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

root = Path(__file__).parents[2]
sys.path[:0] = [str(root), str(root / "tests" / "helpers")]

import fake_program as fake  # noqa: E402

import alignment.execution.runner  # noqa: E402
from alignment.tracking.observer import tracker  # noqa: E402
from flows.local_run import run  # noqa: E402


def before(context: object) -> None:
    """Hang in the chosen stage, and say so."""
    key = f"{context.version}/{context.stage}"  # type: ignore[attr-defined]
    if key == sys.argv[2]:
        print("waiting", flush=True)
        time.sleep(600)


stages = fake.FakeStages()
stages.before = before
alignment.execution.runner.importlib = stages
program = fake.fake_program(Path(sys.argv[1]), versions=1)
with alignment.execution.runner.Runner(program, observers=tracker(program, print)) as runner:
    run(runner, runner.plan, say=print)
print("ran", len(stages.ran), flush=True)
