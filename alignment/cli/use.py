"""`align use`: the workspace that commands work on when none is named."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from alignment.errors import ConfigError


def use(
    workspace: Path | None = None,
    /,
    *,
    none: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Choose the workspace that commands in this directory work on when none is named; without
    an argument list the workspaces below `./workspaces`.

    Nothing else chooses: not the run that was last, and never a reproduction.

    For example:

    ```
    align use demo
    align use ../elsewhere/workspaces/hh
    align use
    align use --none
    ```

    Parameters
    ----------
    workspace
        Name of a directory below `./workspaces`, or any path.
    none
        Forget the choice.
    """
    from alignment.cli import workspaces

    if none:
        if workspace is not None:
            raise ConfigError("--none takes no workspace")
        workspaces.unpin()
    elif workspace is not None:
        below = workspaces.FOLDER / workspace
        path = workspaces.existing(below if below.is_dir() else workspace)
        workspaces.pin(path)
        print(f"in use: {path}")
        return
    current = workspaces.pinned()
    for path in workspaces.here():
        mark = "*" if current is not None and path.resolve() == current.resolve() else " "
        print(f"{mark} {path}")
    print(f"in use: {current}" if current is not None else "in use: none is chosen")
