"""`align status`: what is done, what is not, and why."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from alignment.cli.common import JsonOption, WorkspaceOption, load_workspace, print_json

if TYPE_CHECKING:
    from rich.console import RenderableType

    from alignment.config.program import ProgramConfig
    from alignment.operations.status import ProgramStatus, StageStatus

MARKS = {
    "done": "[green]done[/]",
    "running": "[cyan]running[/]",
    "failed": "[red]failed[/]",
    "killed": "[yellow]killed[/]",
    "pending": "[dim]pending[/]",
    "stale": "[yellow]stale[/]",
}
LOG_LINES = 6


def status(
    *,
    watch: Annotated[bool, Parameter(negative=())] = False,
    every: float = 2.0,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Show every stage of every version: its state, attempts and time; why each
    would be run, or was; of one that failed or was killed the last lines of its log.

    For example:

    ```
    align status
    align status --watch
    align status --workspace workspaces/hh --json
    ```

    Parameters
    ----------
    watch
        Show it live until Ctrl-C.
    every
        With `--watch`: seconds between two looks.
    """
    from alignment.operations.status import program_status

    program = load_workspace(workspace)
    if json:
        print_json(program_status(program).to_dict())
        return
    from rich.console import Console

    console = Console(highlight=False)
    if not watch:
        console.print(_page(program, program_status(program)))
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        try:
            while True:
                program = load_workspace(workspace)
                live.update(_page(program, program_status(program)), refresh=True)
                time.sleep(every)
        except KeyboardInterrupt:
            return


def _page(program: ProgramConfig, state: ProgramStatus) -> RenderableType:
    """The table, who is at work, what is waited for, and what went wrong."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from alignment.pipeline.reasons import FIRST
    from alignment.utils.locks import holder

    table = Table(title=f"{state.program}  ({state.workspace})", title_justify="left", box=None)
    for column in ("version", "stage", "state", "attempts", "seconds", ""):
        numeric = column in ("attempts", "seconds")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    parts: list[RenderableType] = [table]
    for version in state.versions:
        for index, stage in enumerate(version.stages):
            seconds = "" if stage.seconds is None else f"{stage.seconds:.1f}"
            table.add_row(
                f"[bold]{version.name}[/]" if index == 0 else "",
                stage.stage,
                MARKS[stage.state],
                str(stage.attempts or ""),
                seconds,
                (stage.error or ("" if stage.why == FIRST else stage.why) or "").partition("\n")[0],
            )
            if stage.state in ("failed", "killed", "running"):
                parts += _details(version.name, stage)
    parts += [Text(f"\n{line}", style="yellow") for line in state.next]
    who = holder(program.workspace)
    if who is not None:
        parts.append(
            f"at work: pid {who.get('pid')} since {who.get('since')} ({who.get('command')})"
        )
    return Group(*parts)


def _details(version: str, stage: StageStatus) -> list[RenderableType]:
    from rich.text import Text

    lines: list[RenderableType] = []
    if stage.state == "running":
        lines.append(Text(f"\n{version}/{stage.stage}: attempt {stage.attempts} is running"))
    else:
        style = "red" if stage.state == "failed" else "yellow"
        lines.append(Text(f"\n{version}/{stage.stage} {stage.state}: {stage.error}", style=style))
    if stage.log is not None and Path(stage.log).is_file():
        text = Path(stage.log).read_text(encoding="utf-8", errors="replace")
        lines += [Text(f"  {line}", style="dim") for line in text.splitlines()[-LOG_LINES:]]
        lines.append(Text(f"  log: {stage.log}"))
    if stage.state != "running":
        lines.append(Text("  next: align resume"))
    return lines
