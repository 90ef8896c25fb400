"""What a person must do now: decide, deliver, or add a version."""

from __future__ import annotations

import re

from alignment.config.program import ProgramConfig
from alignment.pipeline.approval import Decisions
from alignment.pipeline.readiness import after_the_last, frontier
from alignment.preferences.inbox import inbox_dir, read_journal


def whats_next(program: ProgramConfig) -> list[str]:
    """A line on each thing that waits for a person, the most urgent first."""
    reached = frontier(program)
    waiting = reached.waiting
    if reached.version is None:
        waiting = Decisions.load(program).awaited(program.version_names[-1])
    lines = []
    if waiting is not None:
        where = f"\n  where: {waiting.where}" if waiting.where else ""
        lines.append(f"{waiting.message}{where}\n  next: {waiting.remedy}")
    unheard = after_the_last(program)
    return [*lines, *([] if unheard is None else [unheard]), *_refused(program)]


def _refused(program: ProgramConfig) -> list[str]:
    """Files that still lie in the inbox and were refused as they are."""
    inbox = inbox_dir(program.workspace, program.intake)
    journal = read_journal(program.workspace / "preferences")
    return [
        f"{delivery.file} in the inbox was refused: {_here(program, delivery.error or '')}"
        for delivery in journal.values()
        if delivery.outcome == "refused" and (inbox / delivery.file).exists()
    ]


def _here(program: ProgramConfig, error: str) -> str:
    """The error of a refusal with the place of its quarantine in this workspace: the journal of a
    copy names the original."""
    store = f"{program.workspace / 'preferences'}/refused/"
    return re.sub(r"(?m)^(  where:  ).*/preferences/refused/", lambda m: m[1] + store, error)
