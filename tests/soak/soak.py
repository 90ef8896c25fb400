"""A soak: a served program on the built-in world, under deliveries and kills, then checked.

    python tests/soak/soak.py FOLDER --minutes 40 --kills 25

Batches drop into the inbox at random times, some twice, some broken, some copied slowly, some
while a version runs; the flow, the servers, the deployments' process and `align serve` itself are
killed (-9) at random, and `align serve` is started again whenever it is gone. Now and then somebody
starts `align run` twice at once beside all that, and some of these are killed too. At the end every
sound batch must be in exactly one version, no version missing, no stage done twice, MLflow and
ledger must agree, and every output must have the bytes of a calm run with the same batches.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from checks import done_versions, problems  # noqa: E402
from deliveries import Deliverer, collected, judged  # noqa: E402
from intruders import Intruders  # noqa: E402
from served import TARGETS, Served  # noqa: E402

from alignment.config.load import load_program  # noqa: E402
from alignment.pipeline.ledger import Ledger  # noqa: E402
from alignment.pipeline.readiness import WaitingForBatches, frontier  # noqa: E402
from alignment.preferences.inbox import inbox_dir, read_journal  # noqa: E402
from alignment.utils.locks import holder  # noqa: E402
from flows.servers.child_process import free_port  # noqa: E402

WAIT_FOR_TARGET = 60.0  # seconds until another one is killed instead


def main() -> int:
    """Run the soak; prints what happened as JSON, exit code 1 if anything is wrong."""
    arguments = parse()
    folder: Path = arguments.folder.resolve()
    folder.mkdir(parents=True)
    rng = random.Random(arguments.seed)
    config = write_config(folder, arguments.versions)
    program = load_program(config)
    inbox = inbox_dir(program.workspace, program.intake)
    inbox.mkdir(parents=True)
    served = Served(config, (free_port(), free_port()), folder / "serve.log")
    deliverer = Deliverer(inbox, rng, span=arguments.span)
    intruders = Intruders(config, folder / "run.log")
    began = time.monotonic()
    soaking = began + 60 * arguments.minutes
    delivered: list[str] = []
    next_kill = began + arguments.first_kill
    killed, target = 0, ""
    every = (soaking - next_kill) / max(1, arguments.kills)
    visits = [began + 60 * arguments.minutes * rng.random() for _ in range(arguments.visits)]
    visits.sort(reverse=True)
    while True:
        served.keep_up()
        now = time.monotonic()
        if visits and now > visits[-1] and not intruders.there():
            visits.pop()
            intruders.come()
            say(began, "two `align run` at once")
        for version in program.version_names[1:-1]:  # nobody waits for what the last one collects
            # On a slow machine the time may be up before the first pairs are there.
            if version not in delivered and (now < soaking or not delivered):
                pairs = collected(program, version)
                if pairs:
                    delivered.append(version)
                    deliverer.deliver(version, judged(program, pairs))
                    say(began, f"deliveries from {version}")
        if killed < arguments.kills and now > next_kill:
            targets = (*TARGETS, "run", "run", "run") if intruders.there() else TARGETS
            target = target or rng.choice(targets)
            run = target == "run"
            if intruders.kill(rng) if run else served.kill(target, rng):
                killed += 1
                say(began, f"kill {killed}: {target}")
                next_kill, target = next_kill + every * rng.uniform(0.5, 1.5), ""
            elif now > next_kill + WAIT_FOR_TARGET:
                target = ""
        if now > soaking and killed >= arguments.kills:
            deliverer.wait()
            if delivered and not intruders.there() and settled(program, inbox):
                break
            if now > soaking + 60 * arguments.patience:
                say(began, "does not come to rest")
                break
        time.sleep(1)
    say(began, "at rest")
    left = served.stop()
    said = [f"still there after Ctrl-C: {line}" for line in left]
    said += intruders.problems()
    said += problems(program, deliverer.sound, folder / "calm")
    told = summary(program, served, intruders, deliverer, began)
    print(json.dumps(told | {"problems": said}, indent=2))
    return 1 if said else 0


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="new directory for everything")
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--visits", type=int, default=8, help="of two `align run` at once")
    parser.add_argument("--versions", type=int, default=60, help="more than there is time for")
    parser.add_argument("--span", type=float, default=60.0, help="deliveries within, seconds")
    parser.add_argument("--first-kill", type=float, default=20.0, help="after, seconds")
    parser.add_argument("--patience", type=float, default=20.0, help="minutes to come to rest")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def write_config(folder: Path, versions: int) -> Path:
    """The soak's program, with PPO in every third version and in the last."""
    numbers = range(1, versions + 1)
    rows = [{"name": f"rlhf-v{n}", "ppo": n % 3 == 0 or n == versions} for n in numbers]
    text = (HERE / "soak.yaml").read_text()
    text = text.replace("WORKSPACE", str(folder / "workspace"))
    path = folder / "soak.yaml"
    path.write_text(text.replace("VERSIONS", json.dumps(rows)))
    return path


def settled(program: Any, inbox: Path) -> bool:
    """Whether every file was looked at and everything that can be done is done."""
    journal = read_journal(program.workspace / "preferences")
    complete = [path.name for path in inbox.iterdir() if not path.name.endswith(".part")]
    if set(complete) - set(journal) or holder(program.workspace) is not None:
        return False
    found = frontier(program)
    return found.version is None or isinstance(found.waiting, WaitingForBatches)


def summary(
    program: Any, served: Served, intruders: Intruders, deliverer: Deliverer, began: float
) -> dict[str, Any]:
    """What happened, in figures."""
    ledger = Ledger(program.workspace)
    done = done_versions(program)
    outcomes: dict[str, int] = {}
    for delivery in read_journal(program.workspace / "preferences").values():
        outcomes[delivery.outcome] = outcomes.get(delivery.outcome, 0) + 1
    attempts: dict[str, int] = {}
    for path in ledger.root.glob("*/*/attempts/*.json"):
        status = json.loads(path.read_text())["status"]
        attempts[status] = attempts.get(status, 0) + 1
    kills = served.kills | {"run": intruders.kills}
    return {
        "minutes": round((time.monotonic() - began) / 60, 1),
        "kills": kills,
        "kills_in_all": sum(kills.values()),
        "exit_codes_of_align_run": dict(intruders.codes),
        "starts_of_align_serve": served.starts,
        "versions_done": len(done),
        "files": outcomes,
        "sound_files": len(deliverer.sound),
        "attempts": attempts,
    }


def say(began: float, message: str) -> None:
    """A line with the time since the beginning."""
    seconds = int(time.monotonic() - began)
    print(f"{seconds // 60:3d}:{seconds % 60:02d}  {message}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
