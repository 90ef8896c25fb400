"""How far a program can go now: the next version, and what it waits for if it cannot begin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.pipeline.approval import Decisions
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.node import Node
from alignment.pipeline.plan import build_plan


class WaitingForBatches(AlignError):
    """A version cannot begin until more preferences are delivered."""

    exit_code = 7

    def __init__(
        self,
        version: str,
        have: int,
        need: int,
        inbox: Path,
        lacking: Sequence[str] = (),
        files: int = 0,
        lost: Sequence[str] = (),
    ):
        status = f"{have:,} new comparisons are there (at least {need:,} needed)"
        if lacking:
            status = f"{status}, none on {' and '.join(lacking)} to train on"
        if files:
            waits = "1 file of the inbox is" if files == 1 else f"{files} files of the inbox are"
            status = f"{status}; {waits} not taken in yet"
        status = "; ".join([status, *lost])
        super().__init__(
            f"{version} waits for preferences: {status}",
            where=str(inbox),
            remedy="put files there, or `align ingest FILE`"
            + ("; or `align batches restore BATCH`, `align annotate unblock NAME`" if lost else "")
            + "; then `align resume`",
        )
        self.version = version
        self.have = have
        self.need = need


@dataclass(frozen=True)
class Frontier:
    """Where a program stands.

    Attributes:
        version: the first version that is not done; None if all are done.
        left: its stages that are not done, in order.
        waiting: why it cannot begin; None if it can.
    """

    version: str | None
    left: tuple[Node, ...] = ()
    waiting: AlignError | None = None


def frontier(program: ProgramConfig, until: str | None = None) -> Frontier:
    """The first version up to `until` that is not done, and what it waits for."""
    decisions = Decisions.load(program)
    fingerprints = Fingerprints.load(program, decisions)
    names = program.version_names
    for name in names if until is None else names[: names.index(until) + 1]:
        left = tuple(
            node
            for node in fingerprints.plan
            if node.version == name and fingerprints.manifest(node.version, node.stage) is None
        )
        if left:
            return Frontier(name, left, waits_for(program, name, decisions))
    return Frontier(None)


def waits_for(
    program: ProgramConfig, version: str, decisions: Decisions | None = None
) -> AlignError | None:
    """The decision or the preferences that `version` waits for; None if it may begin."""
    names = program.version_names
    if version in names[1:]:
        decision = (decisions or Decisions.load(program)).awaited(names[names.index(version) - 1])
        if decision is not None:
            return decision
    return waits_for_batches(program, version)


def waits_for_batches(program: ProgramConfig, version: str) -> WaitingForBatches | None:
    """The preferences that `version` of an inbox program lacks; None if it lacks none.

    A version that has taken in its batches lacks none, unless people took the last data of a domain
    back.
    """
    if program.intake.source != "inbox" or not version.startswith("rlhf-"):
        return None
    from alignment.preferences.inbox import (
        domains_without_data,
        inbox_dir,
        not_taken,
        waiting_comparisons,
    )
    from alignment.preferences.store import PreferenceStore
    from alignment.preferences.what_counts import taken_back

    store = PreferenceStore(program.workspace / "preferences")
    lost = taken_back(store, version, restored=False)
    begun = store.assignment(version) is not None
    if begun and not lost:
        return None
    have, need = waiting_comparisons(store), program.orchestration.min_comparisons
    lacking = domains_without_data(store, version)
    if (begun or have >= need) and not lacking:
        return None
    inbox = inbox_dir(program.workspace, program.intake)
    files = not_taken(program.workspace, program.intake)
    return WaitingForBatches(version, have, need, inbox, lacking, len(files), lost)


def next_version(program: ProgramConfig) -> str | None:
    """The first version that has not taken in its batches: it takes in what is delivered now."""
    from alignment.preferences.store import PreferenceStore

    store = PreferenceStore(program.workspace / "preferences")
    names = [version.name for version in program.versions]
    return next((name for name in names if store.assignment(name) is None), None)


def after_the_last(program: ProgramConfig) -> str | None:
    """What to do about preferences that no version of the program will take in, if there are any.

    They came after the last version had begun.
    """
    if next_version(program) is not None:
        return None
    from alignment.preferences.inbox import waiting_comparisons
    from alignment.preferences.store import PreferenceStore

    waiting = waiting_comparisons(PreferenceStore(program.workspace / "preferences"))
    if not waiting:
        return None
    need = program.orchestration.min_comparisons
    enough = f" ({need} make a version)" if program.intake.source == "inbox" else ""
    return (
        f"{waiting} comparisons wait{enough}, and every version has begun without them: add "
        f"`- name: rlhf-v{len(program.versions) + 1}` to `versions` in the program's file, then "
        "`align run FILE`; `align serve FILE` sees it by itself"
    )


def available(program: ProgramConfig, until: str | None = None) -> list[Node]:
    """The nodes of all versions that are done or may begin now, in order.

    Callers that have run them call again, because a person may have decided by then, or more
    preferences may have arrived.
    """
    decisions = Decisions.load(program)
    names = program.version_names
    reached: list[str] = []
    for name in names if until is None else names[: names.index(until) + 1]:
        if waits_for(program, name, decisions) is not None:
            break
        reached.append(name)
        if _ends_a_run(program, name, decisions):
            break
    return [node for node in build_plan(program, decisions) if node.version in reached]


def _ends_a_run(program: ProgramConfig, version: str, decisions: Decisions) -> bool:
    """Whether it is still open if the version after this one may begin."""
    if not version.startswith("rlhf-"):
        return False
    if decisions.by_person and version not in decisions.decided:
        return True  # a person must decide first
    if program.intake.source != "inbox":
        return False
    from alignment.preferences.store import PreferenceStore

    # This version will take in all waiting batches, so none are left for the next.
    return PreferenceStore(program.workspace / "preferences").assignment(version) is None
