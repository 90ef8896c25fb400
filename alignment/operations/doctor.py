"""Diagnoses a workspace and repairs it: checks files, locks, outputs and MLflow.

A run would repair or refuse the same problems by itself; the doctor reports them beforehand.
Repairs never delete the outputs of a finished stage.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from alignment.config.load import for_version
from alignment.config.program import ProgramConfig
from alignment.errors import AlignError, LockedError, redact
from alignment.inference.vllm_environment import installed, interpreter, trouble
from alignment.operations.network_disk import network_notices
from alignment.pipeline.approval import find_decision
from alignment.pipeline.disk_space import check_space
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.ledger import SHOWN, Ledger, attempt_records, verify
from alignment.pipeline.readiness import frontier
from alignment.pipeline.records import Attempt
from alignment.pipeline.slices import stage_declaration
from alignment.utils.files import MANIFEST, sha256_file
from alignment.utils.locks import holder, workspace_lock

OLD = 7 * 86400  # seconds after which unfinished work of other settings is rubbish
COMMITTED = re.compile(rf"[0-9a-f]{{{SHOWN}}}")


@dataclass(frozen=True)
class Finding:
    """A problem, or a harmless fact worth knowing.

    Attributes:
        what: the problem in one sentence.
        where: file, directory or run.
        remedy: what the repair does, or what the user has to do.
        mend: the repair; None if only the user can act, or nothing has to be done.
        harmless: for information only.
    """

    what: str
    where: str
    remedy: str
    mend: Callable[[], Any] | None = None
    harmless: bool = False


def examine(
    program: ProgramConfig, *, hashes: bool = True, fix: bool = False
) -> Iterator[tuple[Finding, bool]]:
    """Check the workspace; yields each finding, and whether it was repaired.

    If another process holds the workspace, that is the first finding, and nothing is repaired.

    Args:
        hashes: also compute the sha256 of every output (reads all checkpoints).
        fix: repair what can be repaired, with the workspace locked.
    """
    stale = list(_locks(program))
    with ExitStack() as stack:
        if fix:
            try:
                stack.enter_context(workspace_lock(program.workspace))
            except LockedError as error:
                what = f"nothing was repaired: {error.message}"
                yield Finding(what, str(program.workspace), error.remedy or ""), False
                fix = False
        yield from ((note, fix) for note in stale)  # locking replaces the dead process's name
        busy = not fix and holder(program.workspace) is not None
        for finding in _findings(program, hashes, busy=busy):
            if fix and finding.mend is not None:
                finding.mend()
            yield finding, fix and finding.mend is not None


def _findings(program: ProgramConfig, hashes: bool, *, busy: bool) -> Iterator[Finding]:
    """All findings but those on locks. `busy`: another process works in the workspace."""
    damaged = {finding.where: finding for finding in _records(program)}
    yield from damaged.values()
    if damaged:
        return  # everything else is worked out from the records
    yield from _disk(program)
    for what, remedy in network_notices(program):
        yield Finding(what, str(program.workspace), remedy, harmless=True)
    yield from _engines(program)
    yield from _attempts(program, busy)
    yield from _directories(program, busy)
    yield from _older_code(program)
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


def _engines(program: ProgramConfig) -> Iterator[Finding]:
    """Whether vLLM works, where it is the engine of a version."""
    names = program.version_names[1:]
    settings = [for_version(program, name).inference for name in names]
    for config in dict.fromkeys(one.vllm for one in settings if one.engine == "vllm"):
        try:
            why, where = trouble(config), str(interpreter(config))
            if why is not None:
                yield Finding(why, where, "remove it, then align vllm install")
            else:
                what = f"vLLM {installed(config).version} works"
                yield Finding(what, where, "nothing to do", harmless=True)
        except AlignError as error:
            yield Finding(error.message, error.where or "", error.remedy or "")


def _locks(program: ProgramConfig) -> Iterator[Finding]:
    lock = program.workspace / "lock"
    if lock.is_file() and lock.stat().st_size and holder(program.workspace) is None:
        yield Finding(
            "the process that held the workspace was killed",
            str(lock),
            "its name is removed; the kernel has released the lock",
            lambda: _relock(program.workspace),
        )


def _relock(workspace: Path) -> None:
    with workspace_lock(workspace):
        pass


def _records(program: ProgramConfig) -> Iterator[Finding]:
    """Records of the ledger, decisions and records of the preferences that cannot be read."""
    from alignment.preferences.inbox import read_journal
    from alignment.preferences.store import PreferenceStore

    ledger, root = Ledger(program.workspace), program.workspace / "preferences"
    checks: list[Callable[[], Any]] = [PreferenceStore(root).batches, partial(read_journal, root)]
    for home in _homes(ledger):
        checks += [partial(Attempt.read, path) for path in attempt_records(home)]
        for read in (ledger.committed, ledger.current, ledger.unfinished):
            checks.append(partial(read, home.parent.name, home.name))
    checks += [partial(find_decision, program.workspace, name) for name in program.version_names]
    for check in checks:
        try:
            check()
        except AlignError as error:
            yield Finding(error.message, error.where or "", error.remedy or "")


def _homes(ledger: Ledger) -> list[Path]:
    return [path for path in sorted(ledger.root.glob("*/*")) if path.is_dir()]


def _attempts(program: ProgramConfig, busy: bool) -> Iterator[Finding]:
    """Attempts marked as running whose process is gone."""
    ledger = Ledger(program.workspace)
    for path in (path for home in _homes(ledger) for path in attempt_records(home)):
        attempt = Attempt.read(path)
        if attempt.status == "running" and (not busy or ledger.is_orphaned(attempt)):
            closed = ledger.final_status(attempt)
            yield Finding(
                f"{attempt.version}/{attempt.stage} attempt {attempt.number} is marked as running, "
                f"but process {attempt.pid} of {attempt.host} is gone",
                str(path),
                f"marked as {closed.status}; `align resume` continues from its checkpoint",
                lambda closed=closed: ledger.write_attempt(closed),  # type: ignore[misc]
            )


def _directories(program: ProgramConfig, busy: bool) -> Iterator[Finding]:
    """Unfinished and unreadable directories, and outputs that were set aside."""
    fingerprints = Fingerprints.load(program)
    ledger, plan = fingerprints.ledger, fingerprints.plan
    current = {
        (node.version, node.stage): fingerprints.of(node)
        for node in plan
        if fingerprints.manifest(node.version, node.stage) is None
    }
    for path in sorted(ledger.root.glob("*/*/.*.partial")):
        expected = current.get((path.parent.parent.name, path.parent.name))
        if expected is not None and path.name == f".{expected[:SHOWN]}.partial":
            what = f"{_stage_of(path)} is unfinished ({_size(path)}); it continues from there"
            yield Finding(what, str(path), "align resume", harmless=True)
        elif time.time() - path.stat().st_mtime < OLD and (path / "out").is_dir():
            what = f"{_stage_of(path)}: unfinished work of other settings is kept ({_size(path)})"
            yield Finding(what, str(path), "doctor removes it once it is a week old", harmless=True)
        elif not busy:
            yield Finding(
                f"{_stage_of(path)}: unfinished work that no stage needs ({_size(path)})",
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
        yield Finding(what, str(path), "remove it if you need the space", harmless=True)


def _older_code(program: ProgramConfig) -> Iterator[Finding]:
    """Outputs that today's code would make otherwise, and that count all the same (`KEEPS`)."""
    fingerprints = Fingerprints.load(program)
    older = []
    for node in fingerprints.plan:
        manifest = fingerprints.manifest(node.version, node.stage)
        today = stage_declaration(node.module).code_version
        if manifest is not None and manifest.code_version != today:
            older.append(f"{node.key} (code version {manifest.code_version}, now {today})")
    if older:
        yield Finding(
            f"made by an older release and not made again: {', '.join(older)}",
            str(program.workspace),
            "see in the changelog what has changed; to have one made again: "
            "align resume VERSION --from STAGE",
            harmless=True,
        )


def _outputs(program: ProgramConfig) -> Iterator[Finding]:
    """Outputs that are missing or have changed since the stage wrote them."""
    fingerprints = Fingerprints.load(program)
    ledger, plan = fingerprints.ledger, fingerprints.plan
    for node in plan:
        manifest = fingerprints.manifest(node.version, node.stage)
        if manifest is None:
            continue
        directory = ledger.committed_dir(node.version, node.stage, manifest.fingerprint)
        damaged = verify(directory)
        if damaged:
            more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
            yield Finding(
                f"{node.key}: missing or changed since the stage wrote it: "
                f"{', '.join(damaged[:3])}{more}",
                str(directory),
                "set aside, so that the next run repeats the stage",
                lambda bad=manifest: ledger.supersede(  # type: ignore[misc]
                    bad.version, bad.stage, bad.fingerprint
                ),
            )


def _batches(program: ProgramConfig) -> Iterator[Finding]:
    """Batches whose files have changed since they were ingested."""
    from alignment.preferences.store import PreferenceStore

    for batch in PreferenceStore(program.workspace / "preferences").batches():
        for name, expected in batch.manifest["files"].items():
            path = batch.directory / name
            if not path.is_file() or sha256_file(path) != expected:
                yield Finding(
                    f"{name} of batch {batch.name} differs from what was ingested",
                    str(path),
                    "restore it from a copy, or remove the batch and ingest it again",
                )


def _tracking(program: ProgramConfig) -> Iterator[Finding]:
    """MLflow runs marked as running although no process works."""
    from alignment.tracking.history import read_history
    from alignment.tracking.rebuild import catch_up
    from alignment.tracking.store import has_own_database, local_database, moved_from, store_uri
    from alignment.tracking.sync import Sync

    database = local_database(program.workspace)
    own = has_own_database(program)
    if not program.tracking.enabled or (own and not database.is_file()):
        return
    before = moved_from(program)
    if before is not None:
        yield Finding(
            f"MLflow: the workspace was copied or moved from {before}, and files of its history "
            "still lie and are written there",
            str(database),
            "the history is written anew, the old one kept beside it",
            lambda: catch_up(program),
        )
        return
    try:
        sync = Sync(program)
        sync.refuse_anothers(read_history(program))
        runs = sync.client.search_runs(
            [sync.store.experiment], "attributes.status = 'RUNNING'", max_results=100
        )
    except AlignError as error:
        yield Finding(error.message, error.where or "", error.remedy or "")
        return
    except Exception as error:  # whatever MLflow raises when its store is out of reach
        message = redact(f"MLflow's store does not answer: {error}").partition("\n")[0]
        remedy = "see that it is up and open to you"
        if own:  # not from here: this process has it open
            remedy = "align mlflow rebuild sets it aside and writes the history anew"
        yield Finding(message, redact(store_uri(program)), remedy)
        return
    for run in runs:
        yield Finding(
            f"MLflow: {run.info.run_name} is marked as running, but no process works",
            f"run {run.info.run_id}",
            "rewritten from the ledger",
            lambda: sync.step(alive=False),
        )


def _stage_of(path: Path) -> str:
    return f"{path.parent.parent.name}/{path.parent.name}"


def _size(directory: Path) -> str:
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    return f"{size / 2**20:,.0f} MiB"
