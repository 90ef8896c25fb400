"""`align stage`: one stage alone."""

from __future__ import annotations

from alignment.cli.common import WorkspaceOption, load_to_change
from alignment.errors import AlignError


def stage(name: str, /, *, workspace: WorkspaceOption = None) -> None:
    """Run one stage; what it needs must be done already.

    For example:

    ```
    align stage rlhf-v2/reward_safety
    align stage sft/evaluate --workspace workspaces/hh
    ```

    Parameters
    ----------
    name
        VERSION/STAGE, as `align status` names it.
    """
    import difflib

    from rich.console import Console

    from alignment.cli.launch import look_in_inbox, run_stages

    program = load_to_change(workspace)
    from alignment.pipeline.approval import Decisions
    from alignment.pipeline.plan import build_plan

    nodes = {node.key: node for node in build_plan(program, Decisions.load(program))}
    if name not in nodes:
        near = difflib.get_close_matches(name, nodes, n=1)
        raise AlignError(
            f"no stage {name!r} in program {program.name}",
            remedy=f"did you mean {near[0]}?" if near else "see `align status` for the names",
        )
    if nodes[name].module == "intake":
        look_in_inbox(program, Console(highlight=False))
    run_stages(program, [nodes[name]])
