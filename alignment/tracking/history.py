"""What the ledger says about a program, gathered for tracking. Reads files, writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from alignment.config.load import for_version
from alignment.config.program import ProgramConfig
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.ledger import SHOWN, Ledger
from alignment.pipeline.node import Node
from alignment.pipeline.records import Attempt, Manifest
from alignment.reporting.headline import headline
from alignment.utils.files import MANIFEST
from alignment.utils.metrics_log import Series


@dataclass(frozen=True)
class Try:
    """One attempt, and what it committed if it did.

    Attributes:
        directory: its committed outputs, or for a running attempt its unfinished ones.
    """

    attempt: Attempt
    manifest: Manifest | None
    directory: Path | None

    def curves(self) -> list[dict[str, float]]:
        """Whole lines of the attempt's curve file."""
        return Series(self.directory / "series.jsonl").rows() if self.directory else []


@dataclass
class VersionHistory:
    """All attempts of one version, stage by stage, and what counts now."""

    version: str
    config: ProgramConfig
    nodes: list[Node]
    tries: dict[str, list[Try]] = field(default_factory=dict)
    current: dict[str, Manifest] = field(default_factory=dict)
    """Stage → manifest under the present configuration."""
    directories: dict[str, Path] = field(default_factory=dict)
    """Stage → committed directory of `current`."""

    @property
    def begun(self) -> bool:
        """Whether anything was ever tried."""
        return any(self.tries.values())

    @property
    def done(self) -> bool:
        """Whether every stage is done."""
        return all(node.stage in self.current for node in self.nodes)

    def headline(self) -> dict[str, float]:
        """The headline figures, under the names every view uses."""
        return headline({stage: manifest.metrics for stage, manifest in self.current.items()})

    def status(self, alive: bool) -> str:
        """MLflow status of the version's run; `alive` if somebody works on the program now."""
        if self.done:
            return "FINISHED"
        newest = self._newest()
        if newest is not None and newest.status in ("failed", "killed"):
            return "FAILED" if newest.status == "failed" else "KILLED"
        return "RUNNING" if alive else "KILLED"

    def started(self) -> str | None:
        """When the first attempt began."""
        return min((item.attempt.started for item in self._all()), default=None)

    def ended(self) -> str | None:
        """When the last attempt ended."""
        return max(
            (item.attempt.ended or item.attempt.started for item in self._all()), default=None
        )

    def _all(self) -> list[Try]:
        return [item for tries in self.tries.values() for item in tries]

    def _newest(self) -> Attempt | None:
        attempts = [item.attempt for item in self._all()]
        return max(attempts, key=lambda item: (item.started, item.number), default=None)


def read_history(program: ProgramConfig, *, dead_pid: int | None = None) -> list[VersionHistory]:
    """Every version of the program, in order.

    Args:
        dead_pid: a process known to have died, though the system may still list it.
    """
    fingerprints = Fingerprints.load(program)
    ledger, plan = fingerprints.ledger, fingerprints.plan
    versions = {
        name: VersionHistory(name, for_version(program, name), []) for name in program.version_names
    }
    for node in plan:
        version = versions[node.version]
        version.nodes.append(node)
        version.tries[node.stage] = _tries(ledger, node, dead_pid)
        if not version.tries[node.stage]:
            continue
        manifest = fingerprints.manifest(node.version, node.stage)
        if manifest is not None:
            version.current[node.stage] = manifest
            version.directories[node.stage] = ledger.committed_dir(
                node.version, node.stage, manifest.fingerprint
            )
    return list(versions.values())


def origin(history: VersionHistory, stage: str, name: str) -> str | None:
    """The version that input `name` of a finished stage came from."""
    manifest = history.current.get(stage)
    source = manifest.inputs.get(name, {}) if manifest else {}
    return source.get("version")


def _tries(ledger: Ledger, node: Node, dead_pid: int | None) -> list[Try]:
    tries = []
    for attempt in ledger.attempts(node.version, node.stage):
        directory = _directory(ledger, attempt)
        manifest = _read(directory) if directory else None
        if attempt.status == "running" and attempt.pid == dead_pid:
            attempt.status = "killed" if manifest is None else "done"
        if attempt.status == "running":
            manifest = None  # if it is committed, its end is being recorded: the next look has both
            partial = ledger.partial_dir(node.version, node.stage, attempt.fingerprint)
            directory = directory or partial / "out"
        if manifest is not None and attempt.ended is None:
            # Killed between the commit and the note of it: the work is done all the same.
            attempt.ended, attempt.seconds = attempt.started, manifest.seconds
        tries.append(Try(attempt, manifest, directory))
    return tries


def _directory(ledger: Ledger, attempt: Attempt) -> Path | None:
    """Where the attempt's committed outputs lie, set aside or not."""
    home = ledger.committed_dir(attempt.version, attempt.stage, attempt.fingerprint)
    aside = home.with_name(f".superseded-{attempt.fingerprint[:SHOWN]}-{attempt.number:03d}")
    if (aside / MANIFEST).is_file():
        return aside
    if (home / MANIFEST).is_file() and _read(home).attempt == attempt.number:
        return home
    return None


def _read(directory: Path) -> Manifest:
    """A committed manifest; it never changes, so it is parsed once."""
    return _parsed(directory, (directory / MANIFEST).stat().st_mtime_ns)


@lru_cache(maxsize=4096)
def _parsed(directory: Path, _changed: int) -> Manifest:
    return Manifest.read(directory)
