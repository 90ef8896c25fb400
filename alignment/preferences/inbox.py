"""The inbox: a directory where people drop deliveries; each file (or directory) becomes a batch.

A file is ingested once it is complete: its name does not mark it as partial, it has not changed for
some seconds, and no process has it open for writing. Files stay where they are. The journal
`preferences/inbox.json` records the outcome of each file, so that no file is read twice; a changed
file counts as new. A refused file is read again when intake's settings or its permissions change,
and when something is taken back or given back.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from alignment.config.intake import IntakeConfig
from alignment.config.vocabulary import version_order
from alignment.errors import AlignError, DamagedError, DataError, LockedError
from alignment.preferences.intake import ingest
from alignment.preferences.sources import complete_files
from alignment.preferences.store import PreferenceStore
from alignment.preferences.what_counts import comparisons, domains_lacking, excluded_rows
from alignment.preferences.withdrawals import read_events
from alignment.utils.files import atomic_write_json, digest_json, read_json
from alignment.utils.locks import file_lock
from alignment.utils.progress import Progress

log = logging.getLogger("alignment")

JOURNAL = "inbox.json"
SECOND_LOOK = 1.0  # seconds between two looks at a file that seems to be old enough
PATIENCE = 600.0  # seconds to wait for another process that reads the inbox


@dataclass(frozen=True)
class Delivery:
    """The outcome of one file of the inbox.

    Attributes:
        outcome: `accepted` as a batch, `known` (the same delivery was accepted before), `refused`.
        signature: number of files, bytes and last change when it was read; a file with another
            signature is new.
        comparisons: number of accepted comparisons.
        conditions: digest of what a refusal depends on besides the contents: intake's settings, the
            file's inode (permissions) and what people took back, for its rows may be duplicates of
            that. A refused file is read again when it changes.
    """

    file: str
    outcome: Literal["accepted", "known", "refused"]
    signature: list[int]
    batch: str | None
    comparisons: int
    error: str | None
    when: str
    conditions: str = ""


def inbox_dir(workspace: Path, config: IntakeConfig) -> Path:
    """The inbox of a workspace: `intake.path`, or `inbox/` in the workspace."""
    return Path(config.path) if config.path is not None else workspace / "inbox"


class Settling:
    """Tells by two looks which files are completely written.

    No clock decides, for that of a file server may be ahead, and any may be set back: what counts
    is that size, inode and times are what they were `seconds` ago by our own stopwatch. Where the
    clock too says that a file is that old, a second is enough.
    """

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[list[tuple[int, int, int, int]], float]] = {}

    def settled(self, path: Path, seconds: float) -> bool:
        """Whether a file, or every file of a directory, has not changed for `seconds` since it was
        first looked at, and no process has it open for writing."""
        files, now = _files(path), time.monotonic()
        look = [
            (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            for stat in (file.stat() for file in files)
        ]
        newest = max((file.stat().st_ctime for file in files), default=time.time())
        if time.time() - newest >= seconds:
            seconds = min(seconds, SECOND_LOOK)
        before, since = self._seen.get(path, (None, now))
        if before != look:
            self._seen[path] = (look, since := now)
        return now - since >= seconds and not _written_to(files)


def not_taken(workspace: Path, config: IntakeConfig) -> list[Path]:
    """The inbox's files to ingest, by name: new ones, and refused ones whose conditions changed."""
    directory, root = inbox_dir(workspace, config), workspace / "preferences"
    if not directory.is_dir():
        return []
    new, journal = [], read_journal(root)
    for path in complete_files(directory):
        try:
            delivery = journal.get(path.name)
            if delivery is None or not _decided(delivery, path, config, root):
                new.append(path)
        except FileNotFoundError:
            continue  # removed in the meantime
    return new


def settled_files(paths: list[Path], settling: Settling, seconds: float) -> list[Path]:
    """Those of `paths` that are there and settled."""
    ready = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            if settling.settled(path, seconds):
                ready.append(path)
    return ready


def ingest_inbox(
    workspace: Path,
    config: IntakeConfig,
    settle_seconds: float,
    progress: Progress | None = None,
    say: Callable[[str], None] = log.warning,
) -> list[Delivery]:
    """Ingest every complete new file of a workspace's inbox, if it has one, each as one batch.

    Where there are new files, this waits up to `settle_seconds` to see whether they change. A
    refused file does not block the others. If the process dies, finished batches remain whole and
    the next call reports them as `known`.

    Args:
        settle_seconds: a file must have been unchanged for this long.
        say: told which files are not settled yet.

    Returns:
        Outcomes of the files read by this call.

    Raises:
        DataError: `intake.path` is not a directory.
        DamagedError: the store is damaged; the current file is tried again next time.
        AlignError: the store or the inbox cannot be read or written.
    """
    directory = inbox_dir(workspace, config)
    if not directory.is_dir():
        if config.path is None:
            return []
        raise DataError(
            f"no directory {directory}", where="intake.path", remedy="create it, or unset it"
        )
    store = PreferenceStore(workspace / "preferences")
    try:
        store.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AlignError(f"cannot write {store.root}: {error.strerror}") from error
    busy = LockedError(
        "another process has been reading the inbox for ten minutes", where=str(store.root)
    )
    done: list[Delivery] = []
    with file_lock(store.root / "inbox.lock", patience=PATIENCE, busy=lambda: busy):
        journal = read_journal(store.root)
        new, settling = not_taken(workspace, config), Settling()
        ready = settled_files(new, settling, settle_seconds)
        first = min(settle_seconds, SECOND_LOOK)
        for wait in (first, settle_seconds - first):
            if len(ready) < len(new) and wait > 0:
                time.sleep(wait)
                ready = settled_files(new, settling, settle_seconds)
        late = [path.name for path in new if path not in ready and path.exists()]
        if late:
            some = f"{len(late)} files are" if len(late) > 1 else "1 file is"
            say(
                f"{some} not settled yet ({', '.join(late[:5])}{', …' if len(late) > 5 else ''}): "
                f"they changed within {settle_seconds:g} s, or a process has them open"
            )
        for path in ready:
            delivery = _ingest_file(store, path, config, progress)
            journal[delivery.file] = delivery
            atomic_write_json(
                store.root / JOURNAL, {name: asdict(item) for name, item in journal.items()}
            )
            done.append(delivery)
    return done


def read_journal(root: Path) -> dict[str, Delivery]:
    """File name → its outcome.

    Raises:
        DataError: the journal is damaged.
    """
    path = root / JOURNAL
    if not path.is_file():
        return {}
    try:
        return {name: Delivery(**values) for name, values in read_json(path).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"the inbox journal is damaged: {error}",
            where=str(path),
            remedy="remove it: every file is read again, and known batches are recognised",
        ) from error


def waiting_comparisons(store: PreferenceStore) -> int:
    """Number of accepted comparisons that count and that no version uses yet."""
    return comparisons(store.unassigned(), excluded_rows(store))


def domains_without_data(store: PreferenceStore, version: str) -> list[str]:
    """Domains without a training comparison in what `version` and those before it took in and in
    what waits.

    Each of the two reward models needs comparisons of its own domain. A version started without
    them would claim its batches and then fail every time.
    """
    known = [
        batch.id
        for batch in store.batches()
        if batch.withdrawal is None
        and (
            not batch.versions
            or any(version_order(name) <= version_order(version) for name in batch.versions)
        )
    ]
    return domains_lacking(store, known)


def _ingest_file(
    store: PreferenceStore, path: Path, config: IntakeConfig, progress: Progress | None
) -> Delivery:
    signature, conditions = _signature(path), _conditions(path, config, store.root)
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        report = ingest(store, [path], config, progress=progress)
    except DamagedError:
        raise  # the store is at fault, not the file
    except DataError as error:
        return Delivery(path.name, "refused", signature, None, 0, str(error), when, conditions)
    count = store.batch(report.id).comparisons
    outcome: Literal["accepted", "known"] = "known" if report.already else "accepted"
    return Delivery(path.name, outcome, signature, report.id, count, None, when, conditions)


def _decided(delivery: Delivery, path: Path, config: IntakeConfig, root: Path) -> bool:
    """Whether reading the file again could not change its outcome."""
    if delivery.signature != _signature(path):
        return False
    return delivery.outcome != "refused" or delivery.conditions == _conditions(path, config, root)


def _signature(path: Path) -> list[int]:
    stats = [file.stat() for file in _files(path)]
    return [
        len(stats),
        sum(stat.st_size for stat in stats),
        max((stat.st_mtime_ns for stat in stats), default=0),
    ]


def _conditions(path: Path, config: IntakeConfig, root: Path) -> str:
    settings = config.model_dump(mode="json", exclude={"path", "source"})
    changed = max((file.stat().st_ctime_ns for file in _files(path)), default=0)
    taken_back = len(read_events(root))
    return digest_json([settings, changed, *([taken_back] if taken_back else [])])[:16]


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def _written_to(files: list[Path]) -> bool:
    """Whether a process that we may inspect has one of the files open for writing.

    Only Linux reports the mode of an open file.
    """
    names = {str(file.resolve()) for file in files}
    for process in psutil.process_iter():
        try:
            handles = process.open_files()
        except psutil.Error:
            continue  # another user's process, or one that just ended
        if any(h.path in names and set(getattr(h, "mode", "r")) & set("wa+") for h in handles):
            return True
    return False


def delivery_row(delivery: Delivery) -> dict[str, Any]:
    """A table row: the outcome in brief."""
    return {
        "file": delivery.file,
        "outcome": delivery.outcome,
        "batch": delivery.batch or "",
        "comparisons": delivery.comparisons,
        "why": (delivery.error or "").partition("\n")[0],
    }
