"""What is wrong with a workspace, and how to mend it: looks at files, locks, outputs and MLflow.

Nothing is looked for that a run would not repair or refuse by itself; the doctor says it before.
Mending never deletes what a finished stage wrote.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError, LockedError, redact
from alignment.pipeline.disk_space import check_space
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.ledger import SHOWN, Ledger, verify
from alignment.pipeline.readiness import frontier
from alignment.pipeline.records import Attempt
from alignment.utils.files import MANIFEST, sha256_file
from alignment.utils.locks import holder, workspace_lock

OLD = 7 * 86400  # seconds after which unfinished work of other settings is rubbish
COMMITTED = re.compile(rf"[0-9a-f]{{{SHOWN}}}")


@dataclass(frozen=True)
class Finding:
    """Something a person should know.

    Attributes:
        what: in one sentence.
        where: file, directory or run.
        remedy: what mending does, or what the person has to do.
        mend: does it; None where only a person can, or where nothing needs to be done.
        harmless: it is told for information.
    """

    what: str
    where: str
    remedy: str
    mend: Callable[[], Any] | None = None
    harmless: bool = False


def examine(program: ProgramConfig, *, hashes: bool = True) -> Iterator[Finding]:
    """Everything found in the workspace, one after the other.

    Args:
        hashes: also compute sha256 of every output (reads all checkpoints).
    """
    yield from _locks(program)
    yield from _look(program, hashes, busy=holder(program.workspace) is not None)


def mend(program: ProgramConfig, *, hashes: bool = True) -> Iterator[tuple[Finding, bool]]:
    """Examine with the workspace held, so that nobody begins meanwhile, and mend on the way.

    Does somebody work there, that is the first finding, and nothing is mended.

    Returns:
        Each finding, and whether it was mended.
    """
    notes = list(_locks(program))
    with ExitStack() as held:
        try:
            held.enter_context(workspace_lock(program.workspace))
        except LockedError as error:
            what = f"nothing is mended here: {error.message}"
            yield Finding(what, str(program.workspace), error.remedy or ""), False
            yield from ((found, False) for found in examine(program, hashes=hashes))
            return
        yield from ((note, True) for note in notes)  # our name stands there now, not the dead one's
        for found in _look(program, hashes, busy=False):
            if found.mend is not None:
                found.mend()
            yield found, found.mend is not None


def _look(program: ProgramConfig, hashes: bool, *, busy: bool) -> Iterator[Finding]:
    """`busy`: whether somebody else works in the workspace."""
    yield from _disk(program)
    yield from _attempts(program, busy)
    yield from _directories(program, busy)
    if hashes:
        yield from _outputs(program)
        yield from _batches(program)
    if not busy:
        yield from _tracking(program)


def _disk(program: ProgramConfig) -> Iterator[Finding]:
    for node in frontier(program).left:
        try:
            check_space(program, node)
        except AlignError as error:
            yield Finding(error.message, str(program.workspace), error.remedy or "")
            return


def _locks(program: ProgramConfig) -> Iterator[Finding]:
    lock = program.workspace / "lock"
    if lock.is_file() and lock.stat().st_size and holder(program.workspace) is None:
        yield Finding(
            "the process that held the workspace was killed",
            str(lock),
            "its name is removed; the lock itself went with it",
            lambda: _take_once(program.workspace),
        )


def _take_once(workspace: Path) -> None:
    with workspace_lock(workspace):
        pass


def _attempts(program: ProgramConfig, busy: bool) -> Iterator[Finding]:
    """Attempts that are marked as running, whose process is gone."""
    ledger = Ledger(program.workspace)
    for path in sorted(ledger.root.glob("*/*/attempts/*.json")):
        written = Attempt.read(path)
        if written.status == "running" and (not busy or ledger.is_orphaned(written)):
            seen = ledger.final_status(written)
            yield Finding(
                f"{written.version}/{written.stage} attempt {written.number} is marked as running, "
                f"but process {written.pid} of {written.host} is gone",
                str(path),
                f"marked as {seen.status}; `align resume` goes on from its checkpoint",
                lambda seen=seen: ledger.write_attempt(seen),  # type: ignore[misc]
            )


def _directories(program: ProgramConfig, busy: bool) -> Iterator[Finding]:
    """Unfinished and unreadable directories, and what was set aside."""
    known = Fingerprints.load(program)
    ledger, plan = known.ledger, known.plan
    current = {
        (node.version, node.stage): known.of(node)
        for node in plan
        if known.manifest(node.version, node.stage) is None
    }
    for path in sorted(ledger.root.glob("*/*/.*.partial")):
        wanted = current.get((path.parent.parent.name, path.parent.name))
        if wanted is not None and path.name == f".{wanted[:SHOWN]}.partial":
            what = f"{_stage_of(path)} is unfinished ({_size(path)}); it goes on from there"
            yield Finding(what, str(path), "align resume", harmless=True)
        elif time.time() - path.stat().st_mtime < OLD and (path / "out").is_dir():
            what = f"{_stage_of(path)}: unfinished work of other settings is kept ({_size(path)})"
            yield Finding(what, str(path), "doctor removes it once it is a week old", harmless=True)
        elif not busy:
            yield Finding(
                f"{_stage_of(path)}: unfinished work that nothing asks for ({_size(path)})",
                str(path),
                "removed",
                lambda path=path: shutil.rmtree(path),  # type: ignore[misc]
            )
    for path in sorted(ledger.root.glob("*/*/*")):
        if COMMITTED.fullmatch(path.name) and not (path / MANIFEST).is_file():
            yield Finding(
                f"{_stage_of(path)}: a directory without a manifest, which is never read",
                str(path),
                "removed",
                lambda path=path: shutil.rmtree(path),  # type: ignore[misc]
            )
    for path in sorted(ledger.root.glob("*/*/.superseded-*")):
        what = f"{_stage_of(path)}: outputs that were set aside ({_size(path)})"
        yield Finding(what, str(path), "yours to remove when the room is needed", harmless=True)


def _outputs(program: ProgramConfig) -> Iterator[Finding]:
    """Outputs that are missing, or not what the stage wrote."""
    known = Fingerprints.load(program)
    ledger, plan = known.ledger, known.plan
    for node in plan:
        manifest = known.manifest(node.version, node.stage)
        if manifest is None:
            continue
        directory = ledger.committed_dir(node.version, node.stage, manifest.fingerprint)
        wrong = verify(directory)
        if wrong:
            more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
            yield Finding(
                f"{node.key}: missing or changed since the stage wrote it: "
                f"{', '.join(wrong[:3])}{more}",
                str(directory),
                "set aside, so that the next run does the stage again",
                lambda seen=manifest: ledger.supersede(  # type: ignore[misc]
                    seen.version, seen.stage, seen.fingerprint
                ),
            )


def _batches(program: ProgramConfig) -> Iterator[Finding]:
    """Batches whose files are not what was taken in."""
    from alignment.preferences.store import PreferenceStore

    for batch in PreferenceStore(program.workspace / "preferences").batches():
        for name, expected in batch.manifest["files"].items():
            path = batch.directory / name
            if not path.is_file() or sha256_file(path) != expected:
                yield Finding(
                    f"{name} of batch {batch.name} is not what was taken in",
                    str(path),
                    "restore it from a copy, or remove the batch and ingest it again",
                )


def _tracking(program: ProgramConfig) -> Iterator[Finding]:
    """MLflow runs that are marked as running though nobody works."""
    local = (program.workspace / "mlflow.db").is_file()
    if not program.tracking.enabled:
        return
    import os

    if not local and not os.environ.get("MLFLOW_TRACKING_URI"):
        return
    from alignment.tracking.sync import Sync

    try:
        sync = Sync(program)
        runs = sync.client.search_runs(
            [sync.store.experiment], "attributes.status = 'RUNNING'", max_results=100
        )
    except Exception as error:  # whatever MLflow raises when its store is out of reach
        said = redact(f"MLflow's store does not answer: {error}")
        yield Finding(said, "MLFLOW_TRACKING_URI", "start it")
        return
    for run in runs:
        yield Finding(
            f"MLflow: {run.info.run_name} is marked as running though nobody works",
            f"run {run.info.run_id}",
            "written again from the ledger",
            lambda: sync.step(alive=False),
        )


def _stage_of(path: Path) -> str:
    return f"{path.parent.parent.name}/{path.parent.name}"


def _size(directory: Path) -> str:
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    return f"{size / 2**20:,.0f} MiB"
