"""Carrying out a program for the terminal, through Prefect or plainly."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence

from rich.console import Console

from alignment.approval import WaitingForApproval, awaited, find_approval
from alignment.cli.progress import Narrator, bar
from alignment.cli.results import check_version
from alignment.config.program import ProgramConfig
from alignment.fingerprints import Fingerprints
from alignment.ledger import Ledger
from alignment.lock import refuse_if_held
from alignment.plan import Node, build_plan
from alignment.preflight import preflight
from alignment.runner import Runner


def run_program(program: ProgramConfig, *, until: str | None, prefect: bool) -> None:
    """Do every stage that is not done yet, then show the versions side by side.

    Raises:
        LockedError: another process works on the workspace.
        AlignError: something needed is missing, or a stage failed.
    """
    console = Console(highlight=False)
    if until is not None:
        check_version(program, until)
    nodes = until_decision(program, nodes_until(program, until))
    refuse_if_held(program.workspace)
    left = unfinished(program, nodes)
    if not left:
        waiting = waited_for(program, nodes)
        if waiting is not None:
            say_waiting(waiting, console)
            return
        console.print(f"nothing to do: all {len(nodes)} stages of {program.name} are done")
        console.print(f"[dim]see: align compare -w {program.workspace}[/]")
        return
    preflight(program)
    console.print(
        f"[bold]{program.name}[/]  {len(left)} of {len(nodes)} stages to do  "
        f"[dim]workspace {program.workspace}[/]"
    )
    run_stages(program, nodes, prefect=prefect, console=console)
    summarise(program, console)
    waiting = waited_for(program, nodes)
    if waiting is not None:
        say_waiting(waiting, console)


def until_decision(program: ProgramConfig, nodes: Sequence[Node]) -> list[Node]:
    """The nodes up to the end of the first version on which a person has not decided yet."""
    if program.promote.approval != "person":
        return list(nodes)
    for name in program.version_names:
        if name.startswith("rlhf-") and find_approval(program.workspace, name) is None:
            names = program.version_names[: program.version_names.index(name) + 1]
            return [node for node in nodes if node.version in names]
    return list(nodes)


def waited_for(program: ProgramConfig, nodes: Sequence[Node]) -> WaitingForApproval | None:
    """The decision that `nodes` end at, if a person has to take one."""
    return awaited(program, nodes[-1].version) if nodes else None


def say_waiting(waiting: WaitingForApproval, console: Console) -> None:
    """Tell a person what is asked of them."""
    console.print()
    console.print(f"[bold yellow]{waiting.message}[/]")
    console.print(f"decide: {waiting.remedy}")


def nodes_until(program: ProgramConfig, until: str | None) -> list[Node]:
    """The plan, up to and including version `until`."""
    plan = build_plan(program)
    if until is None:
        return plan
    names = program.version_names
    wanted = names[: names.index(until) + 1]
    return [node for node in plan if node.version in wanted]


def unfinished(program: ProgramConfig, nodes: Sequence[Node]) -> list[Node]:
    """The nodes that the ledger does not have."""
    ledger = Ledger(program.workspace)
    known = Fingerprints(program, ledger, build_plan(program))
    return [node for node in nodes if known.manifest(node.version, node.stage) is None]


def run_stages(
    program: ProgramConfig,
    nodes: Sequence[Node],
    *,
    prefect: bool = False,
    console: Console | None = None,
) -> None:
    """Do `nodes` in order.

    Raises:
        LockedError: another process works on the workspace.
        AlignError: a stage failed.
    """
    refuse_if_held(program.workspace)
    console = console or Console(highlight=False)
    with make_runner(program, console, len(nodes)) as runner:
        if prefect:
            # By name: the library never imports the flows; only this launcher reaches up to them.
            importlib.import_module("flows.program").run(runner, list(nodes))
        else:
            for node in nodes:
                runner.run_node(node)


def make_runner(program: ProgramConfig, console: Console, total: int) -> Runner:
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
    )


def summarise(program: ProgramConfig, console: Console) -> None:
    """Print the table of versions and draw their path."""
    from alignment.cli.results import evaluated_stages
    from alignment.evaluation.compare import comparison
    from alignment.evaluation.path import path_picture
    from alignment.files import atomic_write_bytes

    compared = comparison(evaluated_stages(program, ()))
    console.print()
    console.print(compared.render())
    if program.base.source == "world":
        console.print(
            "[dim]The built-in world is synthetic: its annotators are simulated, its gold scores "
            "are exact and hidden from training.[/]"
        )
    picture = program.workspace / "report" / "path.png"
    atomic_write_bytes(picture, path_picture(compared))
    console.print(f"picture: {picture}")
    console.print(
        f"[dim]next: align report -w {program.workspace} · align ui -w {program.workspace} · "
        f"align chat {compared.newest} -w {program.workspace}[/]"
    )
