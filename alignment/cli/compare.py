"""`align compare` and `align report`: which version is better, and by how much."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from alignment.cli.common import JsonOption, WorkspaceOption, load_workspace, print_json


def compare(
    versions: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    /,
    *,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
    html: Path | None = None,
) -> None:
    """Show the versions side by side: win rates against SFT with 95 % intervals, reward-model
    accuracy, KL from SFT, false refusals.

    For example:

    ```
    align compare
    align compare rlhf-v1 rlhf-v5
    align compare --json
    align compare rlhf-v4 rlhf-v5 --html comparison.html
    ```

    Parameters
    ----------
    versions
        Versions to show. Default: all that are evaluated.
    html
        Write a page with these versions to this file instead: tables, pictures and answers.
    """
    from alignment.cli.results import compared, evaluated_stages

    program = load_workspace(workspace)
    stages = evaluated_stages(program, versions)
    table = compared(program, stages)
    if html is not None:
        from alignment.reporting.html_report import write_report

        title = f"{program.name}: {', '.join(versions) or 'all versions'}"
        write_report(stages, html, title=title, comparison=table)
        print(html)
        return
    if json:
        print_json(table.to_dict())
        return
    from rich.console import Console

    from alignment.reporting.version_table import View

    Console(highlight=False).print(View(table))


def report(*, workspace: WorkspaceOption = None, out: Path | None = None) -> None:
    """Write one self-contained HTML page with the table, the pictures and samples.

    For example:

    ```
    align report
    align report --out report.html
    ```

    Parameters
    ----------
    out
        Where to write it. Default: report/report.html in the workspace.
    """
    from alignment.cli.results import compared, evaluated_stages
    from alignment.reporting.html_report import write_report

    program = load_workspace(workspace)
    target = out or program.workspace / "report" / "report.html"
    stages = evaluated_stages(program, ())
    write_report(stages, target, title=program.name, comparison=compared(program, stages))
    print(target)
