"""Hands the newest pairs out to annotators by itself."""

from __future__ import annotations

from collections.abc import Callable

from alignment.config.program import ProgramConfig
from alignment.operations.annotation_export import (
    Selection,
    collected_pairs,
    export_pairs,
    reward_models,
)
from alignment.preferences.exports import Export


def fill_outbox(program: ProgramConfig, say: Callable[[str], None]) -> Export | None:
    """Export the newest version's pairs to the outbox, if people judge them and none were exported
    before.

    The first pairs are drawn at random also where `orchestration.outbox.select` is `uncertain`: no
    reward model is there yet that could be unsure.
    """
    if program.intake.source != "inbox":
        return None
    newest = next(iter(collected_pairs(program)[-1:]), None)
    if newest is None or not newest.pairs or newest.exported or newest.judged:
        return None
    settings = program.orchestration.outbox
    selection: Selection = settings.select
    if selection == "uncertain" and reward_models(program) is None:
        selection = "random"
        say(
            f"the pairs of {newest.version} are drawn at random: there are no reward models yet "
            "that could say what they are unsure about (orchestration.outbox.select: uncertain)"
        )
    return export_pairs(
        program, newest.version, tool=settings.tool, selection=selection, count=settings.count
    )
