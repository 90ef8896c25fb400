"""The status of a program: the state of every stage, read from the ledger alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignment.config.program import ProgramConfig
from alignment.operations.whats_next import whats_next
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.node import Node
from alignment.pipeline.reasons import why_run
from alignment.pipeline.records import Attempt
from alignment.reporting.headline import headline

State = Literal["done", "running", "failed", "killed", "pending", "stale"]


@dataclass
class StageStatus:
    """One stage. `outputs` maps file → sha256; `seconds` is the time of the finished attempt.

    `why` says why it would be run; of one that is done, why it was run (if that was recorded).
    """

    stage: str
    state: State
    attempts: int
    seconds: float | None
    fingerprint: str | None
    outputs: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    why: str | None = None
    log: str | None = None
    peak_memory_mb: float | None = None


@dataclass
class VersionStatus:
    """One version and its headline metrics."""

    name: str
    stages: list[StageStatus]
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether every stage is done."""
        return all(stage.state == "done" for stage in self.stages)


@dataclass
class ProgramStatus:
    """The whole program."""

    program: str
    workspace: str
    versions: list[VersionStatus]
    next: list[str] = field(default_factory=list)
    """What waits for a person (`alignment.operations.whats_next`)."""

    @property
    def done(self) -> bool:
        """Whether every version is done."""
        return all(version.done for version in self.versions)

    def to_dict(self) -> dict[str, Any]:
        """What `align status --json` prints."""
        return asdict(self)


def program_status(program: ProgramConfig) -> ProgramStatus:
    """The state of every stage under the given configuration."""
    fingerprints = Fingerprints.load(program)
    ledger, plan = fingerprints.ledger, fingerprints.plan
    versions = {name: VersionStatus(name, []) for name in program.version_names}
    for node in plan:
        versions[node.version].stages.append(_stage_status(node, ledger, fingerprints))
    for version in versions.values():
        done = [stage.stage for stage in version.stages if stage.state == "done"]
        if "evaluate" in done:
            manifests = {stage: fingerprints.manifest(version.name, stage) for stage in done}
            version.metrics = headline(
                {stage: manifest.metrics for stage, manifest in manifests.items() if manifest}
            )
    return ProgramStatus(
        program.name, str(program.workspace), list(versions.values()), whats_next(program)
    )


def done_stages(program: ProgramConfig, any_code: bool = False) -> dict[str, dict[str, Path]]:
    """Version → stage → output directory, for all stages done under the present configuration.

    Args:
        any_code: also outputs that older code made with the same settings. They can be shown,
            though a run would make them again.
    """
    fingerprints = Fingerprints.load(program, any_code=any_code)
    ledger, plan = fingerprints.ledger, fingerprints.plan
    directories: dict[str, dict[str, Path]] = {}
    for node in plan:
        manifest = fingerprints.manifest(node.version, node.stage)
        if manifest is not None:
            directories.setdefault(node.version, {})[node.stage] = ledger.committed_dir(
                node.version, node.stage, manifest.fingerprint
            )
    return directories


def _stage_status(node: Node, ledger: Ledger, fingerprints: Fingerprints) -> StageStatus:
    attempts = ledger.attempts(node.version, node.stage)
    manifest = fingerprints.manifest(node.version, node.stage)
    if manifest is not None:
        return StageStatus(
            node.stage,
            "done",
            len(attempts),
            manifest.seconds,
            manifest.fingerprint,
            manifest.outputs,
            why=next((a.reason for a in attempts if a.number == manifest.attempt), None) or None,
            peak_memory_mb=manifest.peak_memory_mb,
        )
    why = why_run(node, fingerprints)
    current = fingerprints.of(node)
    status = StageStatus(node.stage, "pending", len(attempts), None, current, why=why)
    if attempts:
        _describe_attempt(status, attempts[-1], ledger)
    if status.state == "pending":
        old = ledger.current(node.version, node.stage)
        if old is not None:
            status.state = "stale"
            status.seconds = old.seconds
    return status


def _describe_attempt(status: StageStatus, last: Attempt, ledger: Ledger) -> None:
    status.log = str(ledger.log_path(last))
    if last.status == "running":
        status.state = "running"
    elif last.status in ("failed", "killed"):
        status.state = "failed" if last.status == "failed" else "killed"
        status.seconds = last.seconds
        status.error = last.error or "the process died (killed, or the machine went down)"
