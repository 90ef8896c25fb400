"""`align resume`: go on where a run broke off."""

from __future__ import annotations

import math
from typing import Annotated

from cyclopts import Parameter

from alignment.cli.common import (
    DiscardOption,
    PrefectOption,
    WaitOption,
    WorkspaceOption,
    load_to_change,
)
from alignment.errors import AlignError


def resume(
    version: str | None = None,
    /,
    *,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    workspace: WorkspaceOption = None,
    prefect: PrefectOption = True,
    wait: WaitOption = False,
    discard_unfinished: DiscardOption = False,
) -> None:
    """Go on with an interrupted program: finished stages are skipped, the broken one continues
    from its last checkpoint, later ones follow.

    For example:

    ```
    align resume
    align resume rlhf-v2
    align resume rlhf-v3 --from ppo
    align resume rlhf-v3 --from intake
    ```

    Parameters
    ----------
    version
        Stop after this version. Default: go on to the end.
    from_
        Do this stage of VERSION and everything that depends on it again; the old outputs are
        kept beside the new ones.
    """
    from alignment.cli.launch import run_program
    from alignment.pipeline.invalidate import set_aside
    from alignment.utils.locks import workspace_lock

    program = load_to_change(workspace)
    if from_ is not None:
        if version is None:
            raise AlignError("--from needs a version", remedy="align resume rlhf-v3 --from select")
        with workspace_lock(program.workspace, math.inf if wait else 0.0, print):
            aside = set_aside(program, version, from_)
        for path in aside:
            print(f"set aside: {path}")
    run_program(
        program,
        until=version,
        prefect=prefect,
        wait=wait,
        discard_unfinished=discard_unfinished or from_ is not None,
    )
