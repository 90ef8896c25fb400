"""Takes batches, single comparisons and annotators back and gives them back: the record, and what
becomes stale by it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alignment.config.program import ProgramConfig
from alignment.config.vocabulary import version_order
from alignment.errors import AlignError, DataError
from alignment.operations.status import program_status
from alignment.pipeline.ledger import Ledger
from alignment.preferences.store import Batch, PreferenceStore, read_index
from alignment.preferences.what_counts import comparisons, excluded_rows, single
from alignment.preferences.withdrawals import Action, Event, read_events, record, withdrawn
from alignment.utils.files import read_json

Say = Callable[[str], None]


@dataclass(frozen=True)
class Change:
    """What a withdrawal or its undoing did.

    Attributes:
        stale: `version/stage` of the finished stages that a run would make again.
        comparisons: how many more count now; below zero, how many fewer.
    """

    event: Event
    stale: list[str]
    comparisons: int


def withdraw(
    program: ProgramConfig,
    name: str,
    only: Sequence[str] = (),
    *,
    reason: str,
    by: str | None = None,
    say: Say = lambda _message: None,
) -> Change:
    """Take a batch back, or single comparisons of it: they count no longer, and what was trained on
    them is stale.

    Args:
        name: number, id or directory name of the batch.
        only: comparisons, each as its id, as LINE or as FILE:LINE of the delivery.
        say: told if another process writes to the store and this one waits.

    Raises:
        DataError: there is no such batch or comparison.
        AlignError: it is withdrawn already.
    """
    return _change(program, name, only, True, reason, by, say)


def restore(
    program: ProgramConfig,
    name: str,
    only: Sequence[str] = (),
    *,
    reason: str = "",
    by: str | None = None,
    say: Say = lambda _message: None,
) -> Change:
    """Undo `withdraw`: the versions that had taken the batch in have it again.

    Raises:
        DataError: there is no such batch or comparison.
        AlignError: it is not withdrawn.
    """
    return _change(program, name, only, False, reason, by, say)


def block(
    program: ProgramConfig,
    name: str,
    *,
    reason: str,
    by: str | None = None,
    say: Say = lambda _message: None,
) -> Change:
    """Leave out all that an annotator judged, also in later deliveries.

    Raises:
        DataError: no batch names the annotator.
        AlignError: they are blocked already.
    """
    return _block(program, name, True, reason, by, say)


def unblock(
    program: ProgramConfig,
    name: str,
    *,
    reason: str = "",
    by: str | None = None,
    say: Say = lambda _message: None,
) -> Change:
    """Undo `block`.

    Raises:
        AlignError: they are not blocked.
    """
    return _block(program, name, False, reason, by, say)


def unnamed_votes(program: ProgramConfig) -> int:
    """Number of comparisons that several people judged and that do not say who: they count whoever
    is blocked."""
    from alignment.preferences.recorded import RecordedVerdicts

    batches = PreferenceStore(program.workspace / "preferences").known()
    return sum(RecordedVerdicts.read(batch.directory).unnamed() for batch in batches)


def _change(
    program: ProgramConfig,
    name: str,
    only: Sequence[str],
    take_back: bool,
    reason: str,
    by: str | None,
    say: Say,
) -> Change:
    store = PreferenceStore(program.workspace / "preferences")
    store.batch(name)  # before the lock, which makes directories
    with store.writing(say):
        batch, before = store.batch(name), _counting(store)
        rows = list(dict.fromkeys(row for one in only for row in _rows(batch, one)))
        gone = batch.withdrawal is not None
        if rows:
            mine = single(batch.id, read_events(store.root))
            gone = all(row in mine for row in rows)
            if not take_back and not gone and any(row in mine for row in rows):
                rows, gone = [row for row in rows if row in mine], True
        if take_back == gone:
            raise _already(batch, only, gone)
        label = batch.name if not rows else f"{', '.join(only)} of batch {batch.name}"
        event = record(
            store.root,
            "withdrawn" if take_back else "restored",
            "comparison" if rows else "batch",
            batch.id,
            label=label,
            versions=_users(program, batch),
            reason=reason,
            by=by,
            rows=rows,
        )
        more = _counting(store) - before
    return Change(event, stale_stages(program), more)


def _already(batch: Batch, only: Sequence[str], gone: bool) -> AlignError:
    what = f"{', '.join(only)} of batch {batch.name}" if only else f"batch {batch.name}"
    if not gone:
        return AlignError(f"{what} is not withdrawn", remedy="`align batches` lists those that are")
    words = batch.withdrawal.in_words() if batch.withdrawal and not only else f"{what} is withdrawn"
    options = "".join(f" --only {one}" for one in only)
    return AlignError(words, remedy=f"`align batches restore {batch.sequence}{options}` undoes it")


def _block(
    program: ProgramConfig,
    name: str,
    take_back: bool,
    reason: str,
    by: str | None,
    say: Say,
) -> Change:
    store = PreferenceStore(program.workspace / "preferences")
    people = _people(store)
    if take_back and name not in people:
        near = difflib.get_close_matches(name, people, n=1)
        some = ", ".join(sorted(people)[:20])
        raise DataError(
            f"no comparison names an annotator {name!r}",
            where=str(store.root),
            remedy=f"did you mean {near[0]}?" if near else f"there are: {some or 'none'}",
        )
    with store.writing(say):
        before, blocked = _counting(store), withdrawn(read_events(store.root), "annotator")
        if take_back == (name in blocked):
            raise AlignError(
                blocked[name].in_words() if take_back else f"annotator {name} is not blocked",
                remedy=f"`align annotate unblock {name}` undoes it"
                if take_back
                else f"blocked are: {', '.join(sorted(blocked)) or 'none'}",
            )
        action: Action = "withdrawn" if take_back else "restored"
        event = record(store.root, action, "annotator", name, label=name, reason=reason, by=by)
        more = _counting(store) - before
    return Change(event, stale_stages(program), more)


def _people(store: PreferenceStore) -> set[str]:
    from alignment.preferences.recorded import RecordedVerdicts

    return {
        name for batch in store.known() for name in RecordedVerdicts.read(batch.directory).people()
    }


def _counting(store: PreferenceStore) -> int:
    """Number of comparisons that count."""
    batches = [batch for batch in store.known() if batch.withdrawal is None]
    return comparisons(batches, excluded_rows(store))


def _rows(batch: Batch, name: str) -> list[int]:
    """The rows of a batch that a comparison's id, a LINE or FILE:LINE of the delivery names.

    Raises:
        DataError: there is none, or several files have that line.
    """
    import pyarrow.parquet as pq

    file, _, line = name.rpartition(":")
    found: list[int] = []
    ids = read_index(batch).column("id").to_pylist()
    if line.isdecimal() and len(line) < 16:
        table = pq.read_table(batch.directory / "comparisons.parquet", columns=["source", "line"])
        files = [source["file"] for source in batch.manifest["sources"]]
        places = list(zip(table["source"].to_pylist(), table["line"].to_pylist(), strict=True))
        found = [
            row for row, (at, n) in enumerate(places) if file in ("", files[at]) and n == int(line)
        ]
        if len({places[row][0] for row in found}) > 1:
            each = [f"{files[places[row][0]]}:{line} (id {ids[row]:016x})" for row in found]
            raise DataError(
                f"line {line} stands in several files of batch {batch.name}",
                where=str(batch.directory),
                remedy=f"name the file, or the comparison by its id: {', '.join(each[:10])}",
            )
    elif re.fullmatch("[0-9a-f]{16}", name):
        found = [row for row, id in enumerate(ids) if id == int(name, 16)]
    if not found:
        raise DataError(
            f"no comparison {name!r} in batch {batch.name}",
            where=str(batch.directory),
            remedy="name it by its id, or by LINE or FILE:LINE of the delivery; rows that were "
            "quarantined or dropped are in no batch",
        )
    return found


def _users(program: ProgramConfig, batch: Batch) -> list[str]:
    """All versions that ever learned from the batch, also under other settings."""
    users = set(batch.versions)
    if batch.withdrawal is not None:
        users |= set(batch.withdrawal.versions)
    for path in Ledger(program.workspace).root.glob("*/intake/*/batch.json"):
        values = read_json(path)
        if any(taken["id"] == batch.id for taken in values["batches"]):
            users.add(values["version"])
    return sorted(users, key=version_order)


def stale_stages(program: ProgramConfig) -> list[str]:
    """`version/stage` of every finished stage that a run would make again."""
    return [
        f"{version.name}/{stage.stage}"
        for version in program_status(program).versions
        for stage in version.stages
        if stage.state == "stale"
    ]
