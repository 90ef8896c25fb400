"""`align run` by impatient people: two at once beside the served flows, some of them killed."""

from __future__ import annotations

import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

from served import ROOT, outer_environment

from alignment.errors import LockedError
from alignment.pipeline.readiness import WaitingForBatches

# Done, waiting for the inbox, told that another one is at work, or killed by us.
EXPECTED = (0, WaitingForBatches.exit_code, LockedError.exit_code, -9)


class Intruders:
    """The commands that were started.

    Attributes:
        codes: exit code → how often.
        kills: how many were killed.
    """

    def __init__(self, config: Path, log: Path):
        self.codes: Counter[int] = Counter()
        self.kills = 0
        self._config = config
        self._log = log
        self._running: list[subprocess.Popen[bytes]] = []

    def come(self) -> None:
        """Two at once, one of them without Prefect."""
        command = [sys.executable, "-m", "alignment.cli.main", "run", str(self._config)]
        for more in ([], ["--no-prefect"]):
            with self._log.open("ab") as output:
                self._running.append(
                    subprocess.Popen(
                        [*command, *more],
                        cwd=ROOT,
                        env=outer_environment(),
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )

    def there(self) -> bool:
        """Whether any is still at work."""
        for process in list(self._running):
            if process.poll() is not None:
                self._running.remove(process)
                self.codes[process.returncode] += 1
        return bool(self._running)

    def kill(self, rng: random.Random) -> bool:
        """kill -9 one of them; False if there is none now."""
        if not self.there():
            return False
        rng.choice(self._running).kill()
        self.kills += 1
        return True

    def problems(self) -> list[str]:
        """Ends that were not as they must be."""
        return [
            f"{times} × `align run` beside the served flows ended with code {code}"
            for code, times in self.codes.items()
            if code not in EXPECTED
        ]
