"""The record of finished stages and of attempts, in plain files of the workspace.

    versions/rlhf-v1/sample/
        1f0c…/            committed outputs with their manifest.json, made by one rename
        .1f0c….partial/   an unfinished attempt: `out/`, `scratch/` (checkpoints), `request.json`
        attempts/001.json the outcome of each attempt
        attempts/001.log
        current           the fingerprint that the latest run made or found done

A directory without a manifest is never read. The same fingerprint means the same result.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignment.errors import AlignError, DamagedError
from alignment.pipeline.format import as_record, read_record
from alignment.pipeline.node import Node
from alignment.pipeline.records import FINGERPRINT, Attempt, Manifest, Unfinished
from alignment.utils.files import (
    MANIFEST,
    atomic_write_json,
    atomic_write_text,
    digest_json,
    fsync_directory,
    fsync_tree,
    sha256_file,
)
from alignment.utils.locks import holder
from alignment.utils.processes import born, runs

log = logging.getLogger("alignment")
CURRENT = "current"
REQUEST = "request.json"  # in a partial directory: the settings and inputs behind it
KEEP = 3  # unfinished attempts of other settings kept per stage
COUNT_NEWEST = "remove the file: the outputs that were finished last count then"
SHOWN = 16  # hex digits of a fingerprint that name its directory


class Ledger:
    """All stages of one workspace."""

    def __init__(self, workspace: Path):
        self.workspace = workspace
        self.root = workspace / "versions"

    def stage_dir(self, version: str, stage: str) -> Path:
        """Home of all attempts at a stage."""
        return self.root / version / stage

    def committed_dir(self, version: str, stage: str, fingerprint: str) -> Path:
        """Where the outputs for `fingerprint` lie, or would lie."""
        return self.stage_dir(version, stage) / fingerprint[:SHOWN]

    def partial_dir(self, version: str, stage: str, fingerprint: str) -> Path:
        """Where an unfinished attempt works."""
        return self.stage_dir(version, stage) / f".{fingerprint[:SHOWN]}.partial"

    def find(self, version: str, stage: str, fingerprint: str) -> Manifest | None:
        """The manifest for `fingerprint` if that work is done."""
        directory = self.committed_dir(version, stage, fingerprint)
        return Manifest.read(directory) if (directory / MANIFEST).is_file() else None

    def current(self, version: str, stage: str) -> Manifest | None:
        """The manifest that the latest run made or found done; None if it was set aside since.

        After runs with settings A, B and A again it is A's, though B's was committed later. It
        serves callers that cannot work out the fingerprint of the present configuration.
        """
        note = self.stage_dir(version, stage) / CURRENT
        if note.is_file():
            noted = note.read_text(encoding="utf-8", errors="replace").strip()
            if not re.match(FINGERPRINT, noted):
                raise DamagedError("no fingerprint", where=str(note), remedy=COUNT_NEWEST)
            return self.find(version, stage, noted)
        return next(reversed(self.committed(version, stage)), None)

    def committed(self, version: str, stage: str) -> list[Manifest]:
        """All finished outputs of a stage that were not set aside, in the order of attempts."""
        manifests = [
            Manifest.read(path.parent)
            for path in self.stage_dir(version, stage).glob(f"*/{MANIFEST}")
            if not path.parent.name.startswith(".")
        ]
        return sorted(manifests, key=lambda manifest: manifest.attempt)

    def mark_current(self, manifest: Manifest) -> None:
        """Record that a run made this or found it done: `current` returns it from now on."""
        note = self.stage_dir(manifest.version, manifest.stage) / CURRENT
        text = manifest.fingerprint + "\n"
        if not note.is_file() or note.read_text(encoding="utf-8") != text:
            atomic_write_text(note, text)

    def attempts(self, version: str, stage: str) -> list[Attempt]:
        """All attempts, in order; a running one whose process is gone counts as killed."""
        attempts = []
        for path in attempt_records(self.stage_dir(version, stage)):
            attempt = Attempt.read(path)
            if attempt.status == "running" and self.is_orphaned(attempt):
                attempt = self.final_status(attempt)
            attempts.append(attempt)
        return attempts

    def is_orphaned(self, attempt: Attempt) -> bool:
        """Whether the process of an attempt that is marked as running is gone.

        Who runs one holds the workspace: in a copy nobody does, though the process lives. One on
        another host (or in a container of another name) cannot be looked up.
        """
        if holder(self.workspace) is None:
            return True
        return attempt.host == socket.gethostname() and not runs(attempt.pid, attempt.born)

    def final_status(self, attempt: Attempt) -> Attempt:
        """An attempt that was broken off, with the status it ended with."""
        done = self.find(attempt.version, attempt.stage, attempt.fingerprint)
        sealed = done is not None and done.attempt == attempt.number
        return replace(attempt, status="done" if sealed else "killed")

    def unfinished(self, version: str, stage: str) -> list[Unfinished]:
        """Unfinished attempts at a stage that could be continued, the newest first."""
        items = [
            self._unfinished(directory)
            for directory in self.stage_dir(version, stage).glob(".*.partial")
            if (directory / "out").is_dir()
        ]
        return sorted(items, key=lambda item: -item.touched)

    def _unfinished(self, directory: Path) -> Unfinished:
        name = directory.name[1:].removesuffix(".partial")
        touched = max(path.stat().st_mtime for path in (directory, *directory.rglob("*")))
        seconds = 0.0
        for attempt in self.attempts(directory.parent.parent.name, directory.parent.name):
            if attempt.fingerprint[:SHOWN] == name:
                began = datetime.fromisoformat(attempt.started).timestamp()
                worked = touched - began if attempt.seconds is None else attempt.seconds
                seconds += max(0.0, worked)
        steps = [path.name for path in (directory / "scratch").rglob("step-*") if path.is_dir()]
        numbers = [int(text) for step in steps if (text := step.removeprefix("step-")).isdigit()]
        request = directory / REQUEST
        return Unfinished(
            directory,
            name,
            max(numbers, default=None),
            seconds,
            touched,
            read_record(request) if request.is_file() else None,
        )

    def begin(
        self,
        node: Node,
        fingerprint: str,
        request: Mapping[str, Any] | None = None,
        reason: str = "",
        say: Callable[[str], None] = log.warning,
    ) -> Attempt:
        """Open a new attempt and record it.

        The newest `KEEP` unfinished attempts of other fingerprints are kept. The caller must hold
        the workspace: any other attempt still marked as running was broken off.

        Args:
            request: `config`, `code_version` and `inputs` behind the fingerprint.
            say: called with a line on each attempt that is removed.
        """
        home = self.stage_dir(node.version, node.stage)
        earlier = self.attempts(node.version, node.stage)
        for past in earlier:
            if past.status in ("running", "killed"):
                self.write_attempt(self.final_status(past) if past.status == "running" else past)
        partial = self.partial_dir(node.version, node.stage, fingerprint)
        for rubbish in home.glob(".*.partial"):
            # Without `out` it was committed already, and its checkpoints may be half-deleted.
            if not (rubbish / "out").exists():
                shutil.rmtree(rubbish)
        others = [x for x in self.unfinished(node.version, node.stage) if x.directory != partial]
        for item in others[KEEP:]:
            shutil.rmtree(item.directory)
            say(f"{node.key}: removed an unfinished attempt of older settings ({item.name})")
        same = [past.number for past in earlier if past.fingerprint == fingerprint]
        attempt = Attempt(
            version=node.version,
            stage=node.stage,
            number=_highest(home) + 1,
            fingerprint=fingerprint,
            status="running",
            pid=os.getpid(),
            host=socket.gethostname(),
            started=now(),
            resumed_from=same[-1] if same and partial.exists() else None,
            born=born(),
            reason=reason,
        )
        for name in ("out", "scratch"):
            (partial / name).mkdir(parents=True, exist_ok=True)
            _drop_unfinished(partial / name)
        if request is not None:
            atomic_write_json(partial / REQUEST, as_record(request))
        self.write_attempt(attempt)
        return attempt

    def write_attempt(self, attempt: Attempt) -> None:
        """Write an attempt's record to disk."""
        atomic_write_json(self._attempt_path(attempt).with_suffix(".json"), as_record(attempt))

    def log_path(self, attempt: Attempt) -> Path:
        """The log file of an attempt."""
        return self._attempt_path(attempt).with_suffix(".log")

    def _attempt_path(self, attempt: Attempt) -> Path:
        home = self.stage_dir(attempt.version, attempt.stage)
        return home / "attempts" / f"{attempt.number:03d}"

    def commit(self, attempt: Attempt, described: Mapping[str, Any]) -> Manifest:
        """Seal the attempt's outputs with a manifest and publish them by one rename.

        Libraries write weights without fsync, so everything is synced first: after a power cut
        a manifest must not exist without its outputs. `described` holds the manifest's fields
        that the ledger does not know.
        """
        partial = self.partial_dir(attempt.version, attempt.stage, attempt.fingerprint)
        out = partial / "out"
        outputs = hash_outputs(out)
        manifest = Manifest(
            version=attempt.version,
            stage=attempt.stage,
            fingerprint=attempt.fingerprint,
            attempt=attempt.number,
            outputs=outputs,
            digest=digest_json(outputs),
            started=attempt.started,
            **described,
        )
        fsync_tree(out)
        atomic_write_json(out / MANIFEST, as_record(manifest))
        target = self.committed_dir(attempt.version, attempt.stage, attempt.fingerprint)
        out.rename(target)  # without `out`, `begin` treats the checkpoints as rubbish
        for directory in (target.parent, target.parent.parent, self.root):
            fsync_directory(directory)
        self.mark_current(manifest)
        shutil.rmtree(partial)
        return manifest

    def supersede(self, version: str, stage: str, fingerprint: str) -> Path | None:
        """Set the outputs for `fingerprint` aside, so that the stage runs again; returns where they
        are now, or None if there were none."""
        manifest = self.find(version, stage, fingerprint)
        if manifest is None:
            return None
        source = self.committed_dir(version, stage, manifest.fingerprint)
        target = source.with_name(f".superseded-{source.name}-{manifest.attempt:03d}")
        source.rename(target)
        for attempt in self.attempts(version, stage):
            if attempt.number == manifest.attempt:
                attempt.status = "superseded"
                self.write_attempt(attempt)
        return target


def attempt_records(home: Path) -> list[Path]:
    """The records of all attempts at a stage, in order; other files beside them are none."""
    paths = [path for path in home.glob("attempts/*.json") if path.stem.isdecimal()]
    return sorted(paths, key=lambda path: int(path.stem))


def _highest(home: Path) -> int:
    """The highest number of an attempt, whether or not its record is still there."""
    files = home.glob("attempts/*")
    return max((int(path.stem) for path in files if path.stem.isdecimal()), default=0)


def _drop_unfinished(directory: Path) -> None:
    """Remove what a process was writing when it died: only unfinished files begin with a dot."""
    for path in directory.rglob(".*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def hash_outputs(directory: Path) -> dict[str, str]:
    """File → sha256 of everything a stage wrote except the manifest, in sorted order."""
    outputs = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_file() and name != MANIFEST:
            outputs[name] = sha256_file(path)
    if not outputs:
        raise AlignError("the stage wrote no outputs", where=str(directory))
    return outputs


def fingerprint(
    node: Node,
    code_version: str,
    config: Mapping[str, Any],
    seed: int,
    inputs: Mapping[str, str],
) -> str:
    """Digest over everything that a stage's result depends on: its module and options, its code
    version, its slice of the configuration, its seed, and the digests of its inputs by name."""
    return digest_json(
        {
            "module": node.module,
            "code_version": code_version,
            "config": dict(config),
            "options": dict(node.options),
            "seed": seed,
            "inputs": dict(inputs),
        }
    )


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def verify(directory: Path) -> list[str]:
    """Files of a committed directory that are missing or differ from its manifest."""
    return [
        name
        for name, digest in Manifest.read(directory).outputs.items()
        if not (directory / name).is_file() or sha256_file(directory / name) != digest
    ]
