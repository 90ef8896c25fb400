"""The inbox: a directory into which people put deliveries, each file (or directory) a batch.

A file is taken once it is complete: its name does not say otherwise, it has not changed for some
seconds, and no process has it open for writing. Files stay where they are. What became of each is
kept in `preferences/inbox.json`, so that nothing is read twice; a file that changes is new. A
refused one is read again when it might fare better: under other settings, or with other rights.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from alignment.config.intake import IntakeConfig
from alignment.config.vocabulary import DOMAINS
from alignment.errors import AlignError, DataError, LockedError, StoreError
from alignment.preferences.intake import ingest
from alignment.preferences.sources import complete_files
from alignment.preferences.store import PreferenceStore
from alignment.utils.files import atomic_write_json, digest_json, read_json
from alignment.utils.locks import file_lock
from alignment.utils.progress import Progress

JOURNAL = "inbox.json"
PATIENCE = 600.0  # seconds to wait for another look


@dataclass(frozen=True)
class Delivery:
    """What became of one file of the inbox.

    Attributes:
        outcome: `accepted` as a batch, `known` (the same delivery was accepted before), `refused`.
        signature: size and time of last change when it was read: another one means a new file.
        comparisons: accepted ones.
        conditions: digest of what a refusal depended on besides the contents: the settings of
            intake, and the file's inode (its rights). Others mean another look.
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
    """The directory that is looked through."""
    return Path(config.path) if config.path is not None else workspace / "inbox"


def look(
    directory: Path, config: IntakeConfig, seconds: float, journal: dict[str, Delivery]
) -> list[Path]:
    """Complete files that were not taken yet, and refused ones that may fare better now, by name.

    Args:
        seconds: for so long a file must not have changed.
        journal: what was taken, see `read_journal`.
    """
    if not directory.is_dir():
        return []
    found = []
    for path in complete_files(directory):
        try:
            known = journal.get(path.name)
            if known is not None and _decided(known, path, config):
                continue
            if settled(path, seconds):
                found.append(path)
        except FileNotFoundError:
            continue  # taken away while we looked
    return found


def settled(path: Path, seconds: float) -> bool:
    """Whether nobody writes to a file, or to any file of a directory, any more.

    The time of the last change of the inode counts, which copying programs cannot set back.
    """
    files = _files(path)
    newest = max((file.stat().st_ctime for file in files), default=time.time())
    return time.time() - newest >= seconds and not _written_to(files)


def take_in(
    store: PreferenceStore,
    directory: Path,
    config: IntakeConfig,
    settle_seconds: float,
    progress: Progress | None = None,
) -> list[Delivery]:
    """Take in every complete new file of the inbox, each as a batch.

    A refused file does not keep the others out. A process that dies here leaves whole batches; the
    next look finds them known.

    Returns:
        What became of the files that were looked at now.

    Raises:
        StoreError: the store is damaged; the file it was met with is looked at again.
        AlignError: the store or the inbox cannot be written or read.
    """
    done: list[Delivery] = []
    with _alone(store.root):
        journal = read_journal(store.root)
        for path in look(directory, config, settle_seconds, journal):
            delivery = _take(store, path, config, progress)
            journal[delivery.file] = delivery
            atomic_write_json(
                store.root / JOURNAL, {name: asdict(item) for name, item in journal.items()}
            )
            done.append(delivery)
    return done


def look_in(
    workspace: Path,
    config: IntakeConfig,
    settle_seconds: float,
    progress: Progress | None = None,
) -> list[Delivery]:
    """`take_in` for the inbox of a workspace; nothing where it has none yet.

    Raises:
        DataError: `intake.path` names no directory.
        AlignError: see `take_in`.
    """
    directory = inbox_dir(workspace, config)
    if not directory.is_dir():
        if config.path is None:
            return []
        raise DataError(
            f"no directory {directory}", where="intake.path", remedy="create it, or unset it"
        )
    store = PreferenceStore(workspace / "preferences")
    return take_in(store, directory, config, settle_seconds, progress)


def read_journal(root: Path) -> dict[str, Delivery]:
    """File name → what became of it.

    Raises:
        DataError: the record is damaged.
    """
    path = root / JOURNAL
    if not path.is_file():
        return {}
    try:
        return {name: Delivery(**values) for name, values in read_json(path).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"a damaged record of the inbox: {error}",
            where=str(path),
            remedy="remove it: every file is read again, and known batches are recognised",
        ) from error


def comparisons(counts: dict[str, dict[str, int]]) -> int:
    """All comparisons of a batch, those held out included."""
    return sum(sum(domains.values()) for domains in counts.values())


def waiting_comparisons(store: PreferenceStore) -> int:
    """Accepted comparisons that no version has taken in yet."""
    return sum(comparisons(batch.counts) for batch in store.unassigned())


def domains_lacking(store: PreferenceStore) -> list[str]:
    """Domains on which no batch, old or new, has a comparison to train on.

    A version that began without them would take its batches in and then fail for ever: each of the
    two reward models needs comparisons of its own domain.
    """
    counts = [batch.counts for batch in store.batches()]
    return [
        domain
        for domain in DOMAINS
        if not any(sides.get("training", {}).get(domain) for sides in counts)
    ]


def _take(
    store: PreferenceStore, path: Path, config: IntakeConfig, progress: Progress | None
) -> Delivery:
    signature, conditions = _signature(path), _conditions(path, config)
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        report = ingest(store, [path], config, progress=progress)
    except StoreError:
        raise  # it says nothing about the file
    except DataError as error:
        return Delivery(path.name, "refused", signature, None, 0, str(error), when, conditions)
    count = comparisons(store.batch(report.id).counts)
    outcome: Literal["accepted", "known"] = "known" if report.already else "accepted"
    return Delivery(path.name, outcome, signature, report.id, count, None, when, conditions)


def _decided(known: Delivery, path: Path, config: IntakeConfig) -> bool:
    """Whether another look at a file could find nothing else than the last one."""
    if known.signature != _signature(path):
        return False
    return known.outcome != "refused" or known.conditions == _conditions(path, config)


def _signature(path: Path) -> list[int]:
    stats = [file.stat() for file in _files(path)]
    return [
        len(stats),
        sum(stat.st_size for stat in stats),
        max((stat.st_mtime_ns for stat in stats), default=0),
    ]


def _conditions(path: Path, config: IntakeConfig) -> str:
    settings = config.model_dump(mode="json", exclude={"path", "source"})
    changed = max((file.stat().st_ctime_ns for file in _files(path)), default=0)
    return digest_json([settings, changed])[:16]


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def _written_to(files: list[Path]) -> bool:
    """Whether a process of this machine that we may look at has one of them open for writing.

    Only Linux tells how a file was opened.
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


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One look at a time; the kernel gives the lock back when the process dies."""
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AlignError(f"cannot write {root}: {error.strerror}") from error
    busy = LockedError("another look at the inbox does not end", where=str(root))
    with file_lock(root / "inbox.lock", patience=PATIENCE, busy=lambda: busy):
        yield


def describe(delivery: Delivery) -> dict[str, Any]:
    """A row for tables: what a person wants to know first."""
    said = (delivery.error or "").splitlines()
    return {
        "file": delivery.file,
        "outcome": delivery.outcome,
        "batch": delivery.batch or "",
        "comparisons": delivery.comparisons,
        "why": said[0] if said else "",
    }
