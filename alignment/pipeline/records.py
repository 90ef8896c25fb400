"""The records of the ledger: attempts, unfinished attempts and manifests."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignment.pipeline.format import FORMAT, known_fields, read_record
from alignment.utils.files import MANIFEST

Status = Literal["running", "done", "failed", "killed", "superseded"]


@dataclass
class Attempt:
    """One attempt at a stage."""

    version: str
    stage: str
    number: int
    fingerprint: str
    status: Status
    pid: int
    host: str
    started: str
    ended: str | None = None
    seconds: float | None = None
    error: str | None = None
    resumed_from: int | None = None
    """Number of the attempt whose checkpoints this one continues."""
    born: float | None = None
    """When the process `pid` started, in seconds since 1970."""
    reason: str = ""
    """Why the stage was run (`alignment.pipeline.reasons`)."""

    @classmethod
    def read(cls, path: Path) -> Attempt:
        """Read an attempt's record; unknown fields of newer writers are ignored."""
        return cls(**known_fields(cls, read_record(path)))


@dataclass(frozen=True)
class Unfinished:
    """The directory of an attempt that did not finish.

    Attributes:
        name: the first hex digits of its fingerprint.
        step: step of its newest checkpoint, if it has one.
        seconds: about how long attempts worked on it.
        touched: when its newest file was written, in seconds since 1970.
        request: `config`, `code_version` and `inputs` of the attempt; None for release 0.1.
    """

    directory: Path
    name: str
    step: int | None
    seconds: float
    touched: float
    request: dict[str, Any] | None


@dataclass(frozen=True)
class Manifest:
    """The seal on a committed stage directory."""

    version: str
    stage: str
    fingerprint: str
    attempt: int
    code_version: str
    config: dict[str, Any]
    options: dict[str, Any]
    inputs: dict[str, dict[str, str]]
    outputs: dict[str, str]
    digest: str
    seed: int
    libraries: dict[str, str]
    started: str
    seconds: float
    peak_memory_mb: float
    metrics: dict[str, float | None] = field(default_factory=dict)
    datasets: list[dict[str, Any]] = field(default_factory=list)
    format: int = FORMAT

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read a committed directory's manifest; unknown fields of newer writers are ignored."""
        return cls(**known_fields(cls, read_record(directory / MANIFEST)))
