"""The records of the ledger: attempts, unfinished attempts and manifests."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from alignment.errors import DamagedError
from alignment.pipeline.format import FORMAT, read_as
from alignment.utils.files import MANIFEST, RESTORE

Status = Literal["running", "done", "failed", "killed", "superseded"]
FORGET = f"{RESTORE}, or remove it: only MLflow and the log lose the attempt"
REPEAT = f"{RESTORE}, or remove its directory: `align resume` makes the outputs again"


def _time(text: str) -> str:
    try:
        datetime.fromisoformat(text).timestamp()
    except OverflowError:
        raise ValueError("a time beyond all calendars") from None
    return text


def _sources(inputs: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    for name, source in inputs.items():
        known = {"version", "stage", "fingerprint"} if "stage" in source else set()
        if not source.keys() >= {"digest", *known}:
            raise ValueError(f"input {name} without its source")
    return inputs


FINGERPRINT = "^[0-9a-f]{64}$"
Fingerprint = Annotated[str, Field(pattern=FINGERPRINT)]
Time = Annotated[str, AfterValidator(_time)]
Inputs = Annotated[dict[str, dict[str, str]], AfterValidator(_sources)]


@dataclass
class Attempt:
    """One attempt at a stage."""

    version: str
    stage: str
    number: int
    fingerprint: Fingerprint
    status: Status
    pid: Annotated[int, Field(ge=1)]
    host: str
    started: Time
    ended: Time | None = None
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
        """Read the record `VERSION/STAGE/attempts/NUMBER.json`; later fields are passed over.

        Raises:
            AlignError: it is damaged, another attempt's, or a newer release's.
        """
        attempt = read_as(cls, path, FORGET)
        version, stage = path.parts[-4:-2]
        if (attempt.version, attempt.stage, attempt.number) != (version, stage, int(path.stem)):
            whose = f"{attempt.version}/{attempt.stage} attempt {attempt.number}"
            raise DamagedError(f"the record of {whose}", where=str(path), remedy=FORGET)
        return attempt


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
    fingerprint: Fingerprint
    attempt: int
    code_version: str
    config: dict[str, Any]
    options: dict[str, Any]
    inputs: Inputs
    outputs: dict[str, str]
    digest: str
    seed: int
    libraries: dict[str, str]
    started: Time
    seconds: float
    peak_memory_mb: float
    metrics: dict[str, float | None] = field(default_factory=dict)
    datasets: list[dict[str, Any]] = field(default_factory=list)
    format: int = FORMAT

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read the manifest of `VERSION/STAGE/DIRECTORY`; later fields are passed over.

        Raises:
            AlignError: it is damaged, another directory's, or a newer release's.
        """
        path = directory / MANIFEST
        manifest = read_as(cls, path, REPEAT)
        version, stage = directory.parts[-3:-1]
        shown = directory.name.removeprefix(".superseded-").partition("-")[0]
        here = manifest.version == version and manifest.stage == stage
        if not here or not shown or not manifest.fingerprint.startswith(shown):
            whose = f"{manifest.version}/{manifest.stage} {manifest.fingerprint}"
            raise DamagedError(f"the manifest of {whose}", where=str(path), remedy=REPEAT)
        return manifest
