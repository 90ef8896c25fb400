"""`align reproduce`: make a version again and compare."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from alignment.cli.common import JsonOption, WorkspaceOption, load_workspace, print_json
from alignment.errors import AlignError


def reproduce(
    version: str,
    /,
    *,
    into: Path | None = None,
    only_version: Annotated[bool, Parameter(negative=())] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Make a version again in a new workspace, from the first stage on, and compare every byte.

    Ends with exit code 1 if the policy's weights differ, and says where the difference begins.

    For example:

    ```
    align reproduce rlhf-v2
    align reproduce rlhf-v2 --only-version
    align reproduce champion --into /tmp/again
    ```

    Parameters
    ----------
    version
        `sft`, `rlhf-v1` … or `champion`.
    into
        New workspace. Default: `<workspace>-again-<version>`, beside the old one.
    only_version
        Take the stages of earlier versions over, checked against their digests; make only the
        version's own again.
    """
    from rich.console import Console

    from alignment.cli.progress import bar
    from alignment.cli.results import check_version, standing
    from alignment.operations.reproduce import reproduce as make_again

    program = load_workspace(workspace)
    print(f"reproduced from the workspace {program.workspace}", file=sys.stderr, flush=True)
    version = standing(program) if version == "champion" else version
    check_version(program, version)
    console = Console(highlight=False, stderr=True)
    old = program.workspace.resolve()
    target = into or old.with_name(f"{old.name}-again-{version}")
    try:
        done = make_again(
            program,
            version,
            target,
            only_version=only_version,
            progress_factory=lambda node: bar(node, console),
            say=lambda text: console.print(text),
        )
    except KeyboardInterrupt:
        left = f"remove {target} before you start again, or name another by --into"
        print(f"stopped; {left}", file=sys.stderr)
        sys.exit(130)
    if json:
        print_json(done.to_dict())
    else:
        for stage in done.stages:
            mark = "taken over" if stage.taken_over else "same" if stage.same else "differs"
            print(f"{mark:10} {stage.key:28} {stage.digest[:12]} {stage.again[:12]}")
            for name in stage.differing:
                print(f"{'':11}{name}")
        for name, same in done.weights.items():
            print(f"{version} {name}: {'byte-identical' if same else 'DIFFERENT'}")
        print(f"workspace: {done.workspace}")
    if not done.identical:
        first = next(stage for stage in done.stages if not stage.same)
        cause = (
            "; ".join(first.causes) or "nothing that went in differs: machine, threads or device"
        )
        raise AlignError(
            f"{version} is not the same; the difference begins in {first.key}", where=cause
        )
