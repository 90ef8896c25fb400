"""What the ledger writes down: attempts, manifests, and what unfinished attempts leave behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignment.pipeline.format import FORMAT, format_of, known_fields, read_record
from alignment.utils.files import MANIFEST

Status = Literal["running", "done", "failed", "killed", "superseded"]


@dataclass
class Attempt:
    """One try at a stage."""

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
    """The attempt whose checkpoints this one goes on from."""
    born: float | None = None
    """When the process `pid` started, in seconds since 1970."""
    reason: str = ""
    """Why the stage was run: what differed from the last time."""

    @classmethod
    def read(cls, path: Path) -> Attempt:
        """An attempt's record; unknown fields of newer writers are ignored."""
        return cls(**known_fields(cls, read_record(path)))


@dataclass(frozen=True)
class Unfinished:
    """What an attempt left behind that did not come to its end.

    Attributes:
        name: the first hex digits of its fingerprint.
        step: that of its newest checkpoint, if it has one.
        seconds: how long attempts worked on it, about.
        request: `config`, `code_version` and `inputs` it was made for; None for release 0.1.
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
        """The manifest of a committed directory; unknown fields of newer writers are ignored."""
        path = directory / MANIFEST
        values = known_fields(cls, read_record(path))
        return cls(**{**values, "format": format_of(path)})
