"""What several commands need: finding the workspace, reading its program, printing JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.pipeline.workspace import PROGRAM, is_workspace, kept_program, no_workspace

WorkspaceOption = Annotated[
    Path | None,
    Parameter(
        name=["--workspace", "-w"],
        help="Workspace directory. Default: $ALIGN_WORKSPACE, else the newest below ./workspaces.",
    ),
]
SetOption = Annotated[
    tuple[str, ...],
    Parameter(
        name="--set",
        negative=(),
        help="Setting that replaces the file's, as KEY=VALUE; may be given several times.",
    ),
]
JsonOption = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON for scripts.")]
PrefectOption = Annotated[
    bool,
    Parameter(
        name="--prefect",
        help="Run the stages as Prefect flows, or in plain Python for debugging.",
    ),
]
DiscardOption = Annotated[
    bool,
    Parameter(
        name="--discard-unfinished",
        negative=(),
        help="Start stages over whose unfinished attempt was made with other settings. The "
        "newest of those attempts are kept.",
    ),
]
WaitOption = Annotated[
    bool,
    Parameter(
        name="--wait",
        negative=(),
        help="Wait for another process that works on the workspace, in place of giving up.",
    ),
]


def find_workspace(given: Path | None) -> Path:
    """The workspace a command works on.

    Raises:
        AlignError: there is none, or `given` is none.
    """
    if given is None and os.environ.get("ALIGN_WORKSPACE"):
        given = Path(os.environ["ALIGN_WORKSPACE"])
    if given is not None:
        if is_workspace(given):
            return given
        raise no_workspace(given)
    programs = Path("workspaces").glob(f"*/{PROGRAM}")
    newest = max(programs, key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise AlignError(
            "no workspace found below ./workspaces",
            remedy="start one with `align run CONFIG`, or name it: --workspace DIR",
        )
    return newest.parent


def load_workspace(given: Path | None) -> ProgramConfig:
    """The program of a workspace, as it was last run; its path is where it lies now."""
    return kept_program(find_workspace(given))


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
