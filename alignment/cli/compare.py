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
) -> None:
    """Show the versions side by side: win rates against SFT with 95 % intervals, reward-model
    accuracy, KL from SFT, false refusals.

    Examples:

    ```
    align compare
    align compare rlhf-v1 rlhf-v5
    align compare --json
    ```

    Parameters
    ----------
    versions
        Versions to show. Default: all that are evaluated.
    """
    from alignment.cli.results import evaluated_stages
    from alignment.evaluation.compare import comparison

    program = load_workspace(workspace)
    table = comparison(evaluated_stages(program, versions))
    if json:
        print_json(table.to_dict())
        return
    from rich.console import Console

    Console(highlight=False).print(table.render())


def report(*, workspace: WorkspaceOption = None, out: Path | None = None) -> None:
    """Write one self-contained HTML page with the table, the pictures and samples.

    Examples:

    ```
    align report
    align report --out report.html
    ```

    Parameters
    ----------
    out
        Where to write it. Default: report/report.html in the workspace.
    """
    from alignment.cli.results import evaluated_stages
    from alignment.evaluation.report import write_report

    program = load_workspace(workspace)
    target = out or program.workspace / "report" / "report.html"
    write_report(evaluated_stages(program, ()), target, title=program.name)
    print(target)
