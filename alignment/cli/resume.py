"""`align resume`: go on where a run broke off."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from alignment.cli.common import PrefectOption, WaitOption, WorkspaceOption, load_workspace
from alignment.errors import AlignError


def resume(
    version: str | None = None,
    /,
    *,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    workspace: WorkspaceOption = None,
    prefect: PrefectOption = True,
    wait: WaitOption = False,
) -> None:
    """Go on with an interrupted program: finished stages are skipped, the broken one continues
    from its last checkpoint, later ones follow.

    Examples:

    ```
    align resume
    align resume rlhf-v2
    align resume rlhf-v3 --from select
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
    from alignment.ledger import Ledger
    from alignment.lock import workspace_lock
    from alignment.plan import build_plan

    program = load_workspace(workspace)
    if from_ is not None:
        if version is None:
            raise AlignError("--from needs a version", remedy="align resume rlhf-v3 --from select")
        nodes = {node.key: node for node in build_plan(program)}
        if f"{version}/{from_}" not in nodes:
            stages = [node.stage for node in nodes.values() if node.version == version]
            raise AlignError(
                f"no stage {from_!r} in {version}",
                remedy=f"its stages: {', '.join(stages)}" if stages else "see `align status`",
            )
        with workspace_lock(program.workspace):
            aside = Ledger(program.workspace).supersede(version, from_)
        if aside is not None:
            print(f"{version}/{from_}: the old outputs are kept in {aside}")
    run_program(program, until=version, prefect=prefect, wait=wait)
