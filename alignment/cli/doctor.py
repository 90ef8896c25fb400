"""`align doctor`: what is wrong, and mending it."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Annotated

from cyclopts import Parameter

from alignment.cli.common import JsonOption, WorkspaceOption, load_workspace, print_json


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
        Mend what can be mended. Changed outputs are set aside, never deleted.
    quick
        Compute no sha256 of outputs and batches.
    """
    from itertools import chain

    from rich.console import Console

    from alignment.doctor import examine

    program = load_workspace(workspace)
    console = Console(highlight=False, soft_wrap=True)
    told, left = [], 0
    prefect = importlib.import_module("flows.doctor").examine(program.workspace)
    for found in chain(examine(program, hashes=not quick), prefect):
        mended = fix and found.mend is not None
        if mended and found.mend is not None:
            found.mend()
        left += not (mended or found.harmless)
        told.append({"mended": mended, **vars(replace(found, mend=None))})
        if not json:
            mark = (
                "[green]mended[/]" if mended else "[dim]note[/]" if found.harmless else "[red]✗[/]"
            )
            console.print(f"{mark}  {found.what}\n   [dim]{found.where}[/]\n   {found.remedy}")
    if json:
        print_json([{k: v for k, v in row.items() if k != "mend"} for row in told])
    elif not told:
        console.print("nothing wrong")
    elif left and not fix:
        console.print("\nmend what can be mended: align doctor --fix")
    return 1 if left else 0
