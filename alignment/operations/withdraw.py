"""Takes batches back and gives them back: the record, and what becomes stale by it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from alignment.config.program import ProgramConfig
from alignment.config.vocabulary import version_order
from alignment.errors import AlignError
from alignment.operations.status import program_status
from alignment.pipeline.ledger import Ledger
from alignment.preferences.store import Batch, PreferenceStore
from alignment.preferences.withdrawals import Event, record
from alignment.utils.files import read_json


@dataclass(frozen=True)
class Change:
    """What a withdrawal or its undoing did.

    Attributes:
        stale: `version/stage` of the finished stages that a run would make again.
    """

    event: Event
    stale: list[str]


def withdraw_batch(
    program: ProgramConfig,
    name: str,
    *,
    reason: str,
    by: str | None = None,
    say: Callable[[str], None] = lambda _message: None,
) -> Change:
    """Take a batch back: it counts no longer, and what was trained on it is stale.

    Args:
        name: number, id or directory name of the batch.
        say: told if another process writes to the store and this one waits.

    Raises:
        DataError: there is no such batch.
        AlignError: it is withdrawn already.
    """
    return _change(program, name, True, reason, by, say)


def restore_batch(
    program: ProgramConfig,
    name: str,
    *,
    reason: str = "",
    by: str | None = None,
    say: Callable[[str], None] = lambda _message: None,
) -> Change:
    """Undo `withdraw_batch`: the versions that had taken the batch in have it again.

    Raises:
        DataError: there is no such batch.
        AlignError: it is not withdrawn.
    """
    return _change(program, name, False, reason, by, say)


def _change(
    program: ProgramConfig,
    name: str,
    withdraw: bool,
    reason: str,
    by: str | None,
    say: Callable[[str], None],
) -> Change:
    store = PreferenceStore(program.workspace / "preferences")
    store.batch(name)  # before the lock, which makes directories
    with store.writing(say):
        batch = store.batch(name)
        if withdraw == (batch.withdrawal is not None):
            raise AlignError(
                batch.withdrawal.in_words()
                if batch.withdrawal is not None
                else f"batch {batch.name} is not withdrawn",
                remedy=f"`align batches restore {batch.sequence}` undoes it"
                if withdraw
                else "`align batches` lists those that are",
            )
        event = record(
            store.root,
            "withdrawn" if withdraw else "restored",
            "batch",
            batch.id,
            label=batch.name,
            versions=_users(program, batch),
            reason=reason,
            by=by,
        )
    return Change(event, stale_stages(program))


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
