"""How long it takes from a file in the inbox to a version at work, with no clock to help.

    python tests/soak/event_path.py FOLDER --files 5

`align serve` runs the soak's program without any cron and with the default settling time; whenever
a version waits for comparisons, one file is dropped. Prints the seconds until the file is an
accepted batch, until the version's first stage has begun, and until the version is done.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from deliveries import collected, judged  # noqa: E402
from served import Served  # noqa: E402
from soak import settled, write_config  # noqa: E402

from alignment.config.load import load_program  # noqa: E402
from alignment.config.orchestration import OrchestrationConfig  # noqa: E402
from alignment.pipeline.ledger import Ledger  # noqa: E402
from alignment.preferences.inbox import inbox_dir, read_journal  # noqa: E402
from flows.servers.child_process import free_port  # noqa: E402

PATIENCE = 600.0  # seconds for any one step


def main() -> int:
    """Drop the files; prints one JSON object with the seconds of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="new directory for everything")
    parser.add_argument("--files", type=int, default=5)
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    folder.mkdir(parents=True)
    config = write_config(folder, arguments.files)
    text = config.read_text().replace("settle_seconds: 1,", "")
    config.write_text(text.replace('"*/2 * * * *"', "null").replace('"*/3 * * * *"', "null"))
    program = load_program(config)
    inbox = inbox_dir(program.workspace, program.intake)
    inbox.mkdir(parents=True)
    served = Served(config, (free_port(), free_port()), folder / "serve.log")
    seconds: dict[str, list[float]] = {"accepted": [], "running": [], "done": []}
    try:
        served.keep_up()
        for giver, taker in zip(
            program.version_names[1:-1], program.version_names[2:], strict=True
        ):
            wait(lambda: settled(program, inbox) and collected(program, giver))  # noqa: B023
            path = inbox / f"{giver}.jsonl"
            path.write_text("".join(judged(program, collected(program, giver) or [])))
            dropped = time.time()
            journal = program.workspace / "preferences"
            accepted = wait(lambda: read_journal(journal).get(path.name))  # noqa: B023
            seconds["accepted"].append(when(accepted.when) - dropped)
            began = wait(lambda: Ledger(program.workspace).attempts(taker, "intake"))  # noqa: B023
            seconds["running"].append(when(began[0].started) - dropped)
            wait(lambda: settled(program, inbox) and collected(program, taker))  # noqa: B023
            seconds["done"].append(time.time() - dropped)
            print(taker, {name: round(values[-1], 1) for name, values in seconds.items()})
    finally:
        left = served.stop()
    told: dict[str, Any] = {"settle_seconds": OrchestrationConfig().settle_seconds}
    for name, values in seconds.items():
        told[name] = {"median": round(statistics.median(values), 1), "max": round(max(values), 1)}
    print(json.dumps(told))
    return 1 if left else 0


def wait(question: Callable[[], Any]) -> Any:
    """The first answer that is true, asked for five times a second."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        answer = question()
        if answer:
            return answer
        time.sleep(0.2)
    raise TimeoutError(f"nothing for {PATIENCE:.0f} s")


def when(text: str) -> float:
    """Seconds since 1970 of an ISO time."""
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    sys.exit(main())
