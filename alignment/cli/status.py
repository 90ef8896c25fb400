"""`align status`: what is done, what is not, and why."""

from __future__ import annotations

from alignment.cli.common import JsonOption, WorkspaceOption, load_workspace, print_json

MARKS = {
    "done": "[green]done[/]",
    "running": "[cyan]running[/]",
    "failed": "[red]failed[/]",
    "pending": "[dim]pending[/]",
    "stale": "[yellow]stale[/]",
}


def status(*, workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Show every stage of every version: its state, attempts and time, and what went wrong.

    Examples:

    ```
    align status
    align status --workspace workspaces/hh
    align status --json
    ```
    """
    from alignment.status import program_status

    found = program_status(load_workspace(workspace))
    if json:
        print_json(found.to_dict())
        return
    from rich.console import Console
    from rich.table import Table

    from alignment.lock import holder

    console = Console(highlight=False)
    table = Table(title=f"{found.program}  ({found.workspace})", title_justify="left", box=None)
    for column in ("version", "stage", "state", "attempts", "seconds", ""):
        numeric = column in ("attempts", "seconds")
        table.add_column(column, justify="right" if numeric else "left")
    for version in found.versions:
        for index, stage in enumerate(version.stages):
            seconds = "" if stage.seconds is None else f"{stage.seconds:.1f}"
            table.add_row(
                f"[bold]{version.name}[/]" if index == 0 else "",
                stage.stage,
                MARKS[stage.state],
                str(stage.attempts or ""),
                seconds,
                stage.why or ((stage.error or "").splitlines()[0:1] and stage.error) or "",
            )
    console.print(table)
    who = holder(program_workspace := load_workspace(workspace).workspace)
    if who is not None:
        console.print(
            f"at work in {program_workspace}: pid {who.get('pid')} since {who.get('since')}"
        )
    for version in found.versions:
        for stage in version.stages:
            if stage.state == "failed":
                console.print(f"\n[red]{version.name}/{stage.stage}[/] failed: {stage.error}")
                console.print(f"  log: {stage.log}\n  next: align resume")
