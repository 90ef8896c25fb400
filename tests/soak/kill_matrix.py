"""Every stage of one version, killed (-9) at random points and resumed: the same bytes at the end.

    python tests/soak/kill_matrix.py FOLDER --kills 3 --stops 3

First a calm run, which also tells how long each stage takes; then the same program again, in
processes that are killed a random share of that time after a stage has begun. A kill counts only
if the stage was running; one that came too late is tried again on a fresh attempt. Stops are
Ctrl-C: a stage with checkpoints writes one out of turn and ends there, one without is done first.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from alignment.config.load import load_program  # noqa: E402
from alignment.execution.runner import Runner  # noqa: E402
from alignment.pipeline.ledger import Ledger  # noqa: E402
from alignment.pipeline.records import Attempt  # noqa: E402

VERSION = "rlhf-v1"
REACH = 0.5  # kills come within this share of what the stage takes without them


def main() -> int:
    """Run the matrix; prints it as JSON, exit code 1 if any output differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="new directory for everything")
    parser.add_argument("--kills", type=int, default=3, help="of each stage")
    parser.add_argument("--stops", type=int, default=0, help="of each stage that can be stopped")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True)
    rng = random.Random(arguments.seed)
    calm, hunted = (program_in(folder / name) for name in ("calm", "hunted"))
    warm_up()
    in_child(calm, rest=True)
    seconds, digests = figures(calm)
    kills: dict[str, int] = {}
    stops: dict[str, int] = {}
    for key in stages(hunted):
        stops[key] = hunt(hunted, key, seconds[key], arguments.stops, rng, signal.SIGINT)
        kills[key] = hunt(hunted, key, seconds[key], arguments.kills, rng, signal.SIGKILL)
    in_child(hunted, rest=True)
    _, after = figures(hunted)
    wrong = [key for key, digest in digests.items() if after.get(key) != digest]
    print(
        json.dumps(
            {
                "kills": kills,
                "kills_in_all": sum(kills.values()),
                "stops": {key: times for key, times in stops.items() if times},
                "stages_that_differ": wrong,
            },
            indent=2,
        )
    )
    return 1 if wrong else 0


def program_in(folder: Path) -> Any:
    """The soak's program with one version, PPO included; simulated annotators deliver."""
    text = (HERE / "soak.yaml").read_text().replace("WORKSPACE", str(folder))
    text = text.replace("VERSIONS", json.dumps([{"name": VERSION, "ppo": True}]))
    folder.parent.mkdir(exist_ok=True)
    path = folder.with_suffix(".yaml")
    path.write_text(text.replace("source: inbox", "source: simulated"))
    return load_program(path, ["tracking.enabled=false"])


def warm_up() -> None:
    """Import once what every child needs; they are forks of this process."""
    import peft  # noqa: F401
    import torch
    import transformers  # noqa: F401

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job


def stages(program: Any) -> list[str]:
    """Keys of the version's stages, in order."""
    return [node.key for node in Runner(program).plan if node.version == VERSION]


def hunt(
    program: Any, key: str, seconds: float, wanted: int, rng: random.Random, number: signal.Signals
) -> int:
    """Send the signal to stage `key` while it runs; returns how often that broke it off."""
    version, stage = key.split("/")
    ledger = Ledger(program.workspace)
    killed = tries = 0
    while killed < wanted and tries < (10 if number == signal.SIGKILL else 3) * wanted:
        tries += 1
        delay = seconds * REACH * rng.random()
        in_child(program, delay, target=key, number=number)
        last = ledger.attempts(version, stage)[-1]
        if last.status == "killed":
            killed += 1
        else:
            ledger.supersede(version, stage, last.fingerprint)  # too late: it was done
    return killed


def in_child(
    program: Any,
    delay: float = 0.0,
    *,
    target: str | None = None,
    rest: bool = False,
    number: signal.Signals = signal.SIGKILL,
) -> None:
    """Run the program in a fork; send it a signal `delay` seconds after `target` has begun."""
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(ready)
            with Runner(program, observers=[_Teller(tell, target)]) as runner:
                for node in runner.plan:
                    runner.run_node(node)
                    if node.key == target and not rest:
                        break
            code = 0
        finally:
            os._exit(code)
    os.close(tell)
    if os.read(ready, 1) and target is not None:
        time.sleep(delay)
        os.kill(child, number)
    os.close(ready)
    _, status = os.waitpid(child, 0)
    if target is None and status:
        raise SystemExit(f"the program failed in {program.workspace}")


class _Teller:
    """An observer that writes a byte into a pipe when a stage begins."""

    def __init__(self, pipe: int, target: str | None):
        self._pipe = pipe
        self._target = target

    def stage_started(self, attempt: Attempt) -> None:
        if f"{attempt.version}/{attempt.stage}" == self._target:
            os.write(self._pipe, b".")

    def __getattr__(self, name: str) -> Any:
        return lambda *_values: None


def figures(program: Any) -> tuple[dict[str, float], dict[str, str]]:
    """Stage → seconds, stage → digest over the sha256 of all outputs."""
    runner = Runner(program)
    seconds, digests = {}, {}
    for node in runner.plan:
        manifest = runner.fingerprints.manifest(node.version, node.stage)
        if manifest is not None:
            seconds[node.key], digests[node.key] = manifest.seconds, manifest.digest
    return seconds, digests


if __name__ == "__main__":
    sys.exit(main())
