"""Carrying out a program for the terminal, through Prefect or plainly."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence

from rich.console import Console

from alignment.cli.progress import Narrator, bar
from alignment.config.program import ProgramConfig
from alignment.lock import refuse_if_held
from alignment.plan import Node
from alignment.runner import Runner


def make_runner(program: ProgramConfig, console: Console, total: int) -> Runner:
    """A runner that draws a bar, prints a line per stage and records to MLflow."""
    from alignment.tracking.observer import tracker

    logging.getLogger("alignment").setLevel(logging.INFO)
    return Runner(
        program,
        progress_factory=lambda node: bar(node, console),
        observers=[Narrator(console, total), *tracker(program)],
        say=lambda message: console.print(f"[yellow]warning:[/] {message}"),
    )


def run_stages(
    program: ProgramConfig, nodes: Sequence[Node], *, prefect: bool = False
) -> None:
    """Do `nodes` in order.

    Raises:
        LockedError: another process works on the workspace.
        AlignError: a stage failed.
    """
    refuse_if_held(program.workspace)
    console = Console(highlight=False)
    with make_runner(program, console, len(nodes)) as runner:
        if prefect:
            # By name: the library below never imports the flows, only this launcher reaches up.
            importlib.import_module("flows.program").run(runner, list(nodes))
        else:
            for node in nodes:
                runner.run_node(node)
