"""What several commands need: finding the workspace, reading its program, printing JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from alignment.cli import workspaces
from alignment.config.location import given_by
from alignment.config.program import ProgramConfig
from alignment.pipeline.workspace import is_reproduction, kept_program

if TYPE_CHECKING:
    from alignment.operations.withdraw import Change

WorkspaceOption = Annotated[
    Path | None,
    Parameter(
        name=["--workspace", "-w"],
        help="Workspace directory. Default: $ALIGN_WORKSPACE, else what `align use` chose, else "
        "the only one below ./workspaces.",
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
ReasonOption = Annotated[str, Parameter(help="Why, for the history.")]
ByOption = Annotated[str | None, Parameter(help="Who decides. Default: the user's name.")]
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
    """The workspace a command works on: never one of several that nobody chose between.

    Raises:
        AlignError: there is none, there are several, or the one that is named is none.
    """
    if given is None and (named := given_by("ALIGN_WORKSPACE")):
        given = Path(named)
    return workspaces.chosen() if given is None else workspaces.existing(given)


def load_workspace(given: Path | None) -> ProgramConfig:
    """The program of a workspace, as it was last run; its path is where it lies now."""
    return kept_program(find_workspace(given))


def load_to_change(given: Path | None, *, json: bool = False) -> ProgramConfig:
    """`load_workspace` for a command that writes: its first line says where.

    Args:
        json: standard output is for JSON alone, so the line goes to standard error.
    """
    program = load_workspace(given)
    name_workspace(program.workspace, json=json)
    return program


def name_workspace(workspace: Path, *, json: bool = False) -> None:
    """Print which workspace is written to."""
    mark = " (a reproduction)" if is_reproduction(workspace) else ""
    print(f"workspace: {workspace}{mark}", file=sys.stderr if json else sys.stdout, flush=True)


def print_aside(message: str) -> None:
    """A line for people on standard error."""
    print(message, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def carry_out(
    verb: Callable[..., Change],
    *what: Any,
    reason: str,
    by: str | None,
    workspace: Path | None,
    json: bool,
) -> ProgramConfig:
    """Take something back or give it back, and say what that did and what to do now.

    Args:
        verb: a function of `alignment.operations.withdraw`.
        what: its arguments between the program and the reason.

    Returns:
        The program of the workspace.
    """
    program = load_to_change(workspace, json=json)
    _tell(program, verb(program, *what, reason=reason, by=by, say=print_aside), json=json)
    return program


def _tell(program: ProgramConfig, change: Change, *, json: bool) -> None:
    if json:
        print_json(
            {**asdict(change.event), "comparisons": change.comparisons, "stale": change.stale}
        )
        return
    print(change.event.in_words())
    more = change.comparisons
    some = "1 comparison counts" if abs(more) == 1 else f"{abs(more):,} comparisons count"
    again = "again" if more > 0 else "no longer"
    print(f"{some} {again}" if more else "as many comparisons count as before")
    versions = list(dict.fromkeys(key.partition("/")[0] for key in change.stale))
    if versions:
        stages = "1 stage" if len(change.stale) == 1 else f"{len(change.stale)} stages"
        count = f"{stages} of {', '.join(versions)}"
        if change.event.action == "restored":
            print(f"to look at again: {count}; what was made with it before counts again")
            print(f"do it with: align resume -w {program.workspace}")
        else:
            print(f"stale: {count}; `align status` says why")
            print(f"make them again with: align resume -w {program.workspace}")
    else:
        print("no finished stage depends on it")
