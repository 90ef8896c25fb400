"""`align doctor`: what is wrong, and mending it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from alignment.cli.common import (
    JsonOption,
    WorkspaceOption,
    load_to_change,
    load_workspace,
    print_json,
)

if TYPE_CHECKING:
    from alignment.config.program import ProgramConfig
    from alignment.operations.doctor import Finding


def doctor(
    *,
    fix: Annotated[bool, Parameter(negative=())] = False,
    quick: Annotated[bool, Parameter(negative=())] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> int:
    """Look for what crashes and full disks leave behind: runs marked as running whose process is
    dead (ledger, MLflow, Prefect), stale locks and notes, unfinished directories, missing or
    changed outputs and batches (sha256), too little disk. Exit code 1 if something needs mending.

    For example:

    ```
    align doctor
    align doctor --fix
    align doctor --quick --workspace workspaces/hh
    ```

    Parameters
    ----------
    fix
        Mend what can be mended. Changed outputs are set aside, never deleted. While somebody works
        in the workspace nothing is mended there.
    quick
        Compute no sha256 of outputs and batches.
    """
    from rich.console import Console

    program = load_to_change(workspace, json=json) if fix else load_workspace(workspace)
    console = Console(highlight=False, soft_wrap=True)
    rows, left = [], 0
    for finding, mended in _findings(program, fix, hashes=not quick):
        left += not (mended or finding.harmless)
        rows.append({"mended": mended, **vars(finding)})
        if not json:
            mark = "[dim]note[/]" if finding.harmless else "[red]✗[/]"
            mark = "[green]mended[/]" if mended else mark
            console.print(
                f"{mark}  {finding.what}\n   [dim]{finding.where}[/]\n   {finding.remedy}"
            )
    if json:
        print_json([{k: v for k, v in row.items() if k != "mend"} for row in rows])
    elif not rows:
        console.print("nothing wrong")
    elif left and not fix:
        console.print("\nmend what can be mended: align doctor --fix")
    return 1 if left else 0


def _findings(program: ProgramConfig, fix: bool, *, hashes: bool) -> Iterator[tuple[Finding, bool]]:
    """Each finding, and whether it was mended."""
    from alignment.operations.doctor import examine
    from flows import doctor as flows_doctor

    yield from examine(program, hashes=hashes, fix=fix)
    # Runs and servers whose processes are dead: whoever works in the workspace has others.
    for finding in flows_doctor.examine(program.workspace):
        if fix and finding.mend is not None:
            finding.mend()
        yield finding, fix and finding.mend is not None
