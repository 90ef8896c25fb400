"""Carrying out a program for the terminal, through Prefect or plainly."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Collection, Sequence

from rich.console import Console

from alignment.cli.progress import Narrator, bar
from alignment.cli.results import check_version
from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.execution.runner import Runner
from alignment.operations.network_disk import network_notices
from alignment.pipeline.approval import Decisions
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.node import Node
from alignment.pipeline.preflight import preflight
from alignment.pipeline.readiness import after_the_last, available, frontier
from alignment.pipeline.reasons import left_behind
from alignment.pipeline.workspace import make_workspace, refuse_another
from alignment.utils.locks import refuse_if_held


def run_program(
    program: ProgramConfig,
    *,
    until: str | None,
    prefect: bool,
    wait: bool = False,
    discard_unfinished: bool = False,
) -> None:
    """Do every stage that is not done yet and that can be done, then show the versions.

    Args:
        wait: wait for another process that works on the workspace.
        discard_unfinished: start stages over whose unfinished attempt has other settings.

    Raises:
        LockedError: another process works on the workspace.
        AlignError: the workspace is another program's.
        UnfinishedWorkError: there are such stages, and nobody said that it may be so.
        AlignError: something needed is missing, or a stage failed.
    """
    console = Console(highlight=False)
    if until is not None:
        check_version(program, until)
    refuse_another(program)
    if not wait:
        refuse_if_held(program.workspace)
    begun = False
    exported = export_names(program)
    while True:
        look_in_inbox(program, console)
        nodes = available(program, until)
        left = unfinished(program, nodes)
        if not left:
            break
        if not begun:
            if not discard_unfinished:
                ask_about_unfinished(program, nodes, console)
            preflight(program, left)
            begun = True
            for risk, remedy in network_notices(program):
                console.print(f"[yellow]warning:[/] {risk}; {remedy}")
        console.print(f"[bold]{program.name}[/]  {len(left)} of {len(nodes)} stages to do")
        run_stages(program, nodes, prefect=prefect, console=console, wait=wait)
    if begun and any(node.stage == "evaluate" for node in nodes):
        summarise(program, console)
    hand_out(program, console, exported)
    waiting = frontier(program, until).waiting
    if waiting is None and nodes:
        waiting = Decisions.load(program).awaited(nodes[-1].version)
    if waiting is not None:
        console.print(f"\n[bold yellow]{waiting.message}[/]")
        if waiting.where:
            console.print(f"where: {waiting.where}")
        console.print(f"next: {waiting.remedy}")
    elif (unheard := after_the_last(program)) is not None:
        console.print(f"\n[bold yellow]{unheard}[/]")
    elif not begun:
        console.print(f"nothing to do: all {len(nodes)} stages of {program.name} are done")
        console.print(f"[dim]see: align compare -w {program.workspace}[/]")


WORTH = 60.0  # seconds of work for which it pays to ask


class UnfinishedWorkError(AlignError):
    """Settings were changed while a stage was under way, and its work would be left behind."""

    exit_code = 9


def ask_about_unfinished(program: ProgramConfig, nodes: Sequence[Node], console: Console) -> None:
    """Ask a person whether stages may start over whose unfinished attempt has other settings.

    Raises:
        UnfinishedWorkError: there are such attempts with a minute of work or more, and the answer
            is no, or there is nobody to ask.
    """
    lines = left_behind(nodes, Fingerprints.load(program), at_least=WORTH)
    if not lines:
        return
    if console.is_terminal and sys.stdin.isatty():
        for line in lines:
            console.print(f"[yellow]{line}[/]")
        if console.input("Start over with the present settings? [y/N] ").lower() == "y":
            return
    raise UnfinishedWorkError(
        "; ".join(lines),
        remedy="change the settings back to continue from there, or start over with "
        "--discard-unfinished (the newest unfinished attempts are kept)",
    )


def look_in_inbox(program: ProgramConfig, console: Console) -> None:
    """Take in what lies complete in the inbox of a program that has one."""
    if program.intake.source != "inbox":
        return
    from alignment.preferences.inbox import ingest_inbox

    make_workspace(program.workspace)
    for delivery in ingest_inbox(
        program.workspace,
        program.intake,
        program.orchestration.settle_seconds,
        say=lambda text: console.print(f"inbox: {text}"),
    ):
        outcome = delivery.error or f"{delivery.comparisons} comparisons, batch {delivery.batch}"
        console.print(f"inbox: {delivery.file} {delivery.outcome}: {outcome}")


def hand_out(program: ProgramConfig, console: Console, before: Collection[str]) -> None:
    """Give the newest pairs to annotators, unless a flow has done so, and name every file that was
    handed out since `before` (`export_names`)."""
    from alignment.operations.annotation_export import export_dir
    from alignment.operations.outbox import fill_outbox
    from alignment.preferences.exports import list_exports
    from alignment.preferences.store import PreferenceStore

    fill_outbox(program, lambda text: console.print(f"[yellow]{text}[/]"))
    if not export_names(program) - set(before):
        return
    folder = export_dir(program.workspace)
    for export in list_exports(PreferenceStore(program.workspace / "preferences")):
        if export.id not in before:
            console.print(
                f"{export.tasks} pairs of {export.version} for annotators "
                f"({export.tool}; orchestration.outbox.tool): {folder / export.file.name}"
            )


def export_names(program: ProgramConfig) -> set[str]:
    """The ids of all annotation exports of the workspace."""
    from alignment.preferences.exports import export_ids

    return export_ids(program.workspace / "preferences")


def unfinished(program: ProgramConfig, nodes: Sequence[Node]) -> list[Node]:
    """The nodes that the ledger does not have."""
    fingerprints = Fingerprints.load(program)
    return [node for node in nodes if fingerprints.manifest(node.version, node.stage) is None]


def run_stages(
    program: ProgramConfig,
    nodes: Sequence[Node],
    *,
    prefect: bool = False,
    console: Console | None = None,
    wait: bool = False,
) -> None:
    """Do `nodes` in order.

    Args:
        wait: wait for another process that works on the workspace.

    Raises:
        LockedError: another process works on the workspace.
        AlignError: a stage failed.
    """
    if not wait:
        refuse_if_held(program.workspace)
    console = console or Console(highlight=False)
    with make_runner(program, console, len(nodes), wait=wait) as runner:
        if prefect:
            from flows.local_run import run  # Prefect takes seconds to import

            run(runner, nodes)
        else:
            for node in nodes:
                runner.run_node(node)


def make_runner(
    program: ProgramConfig, console: Console, total: int, *, wait: bool = False
) -> Runner:
    """A runner that draws a bar, prints a line per stage and records to MLflow."""
    from alignment.tracking.observer import tracker

    def say(message: str) -> None:
        console.print(f"[yellow]warning:[/] {message}")

    logging.getLogger("alignment").setLevel(logging.INFO)
    return Runner(
        program,
        progress_factory=lambda node: bar(node, console),
        observers=[Narrator(console, total), *tracker(program, say)],
        say=say,
        patience=math.inf if wait else 0.0,
    )


def summarise(program: ProgramConfig, console: Console) -> None:
    """Print the table of versions and draw their path."""
    from alignment.cli.results import compared, evaluated_stages
    from alignment.reporting.pareto_plot import panels, path_picture
    from alignment.reporting.version_table import View
    from alignment.utils.files import atomic_write_bytes

    table = compared(program, evaluated_stages(program, ()))
    console.print()
    console.print(View(table))
    if program.base.source == "world":
        console.print(
            "[dim]The built-in world is synthetic: its annotators are simulated, its gold scores "
            "are exact and hidden from training.[/]"
        )
    if panels(table):
        picture = program.workspace / "report" / "path.png"
        atomic_write_bytes(picture, path_picture(table))
        console.print(f"picture: {picture}")
    console.print(
        f"[dim]next: align report -w {program.workspace} · align ui -w {program.workspace} · "
        f"align chat {table.newest} -w {program.workspace}[/]"
    )
