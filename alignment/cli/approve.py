"""`align approve` and `align reject`: a person's word on a version."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from alignment.cli.common import (
    ByOption,
    JsonOption,
    ReasonOption,
    WorkspaceOption,
    load_to_change,
    print_json,
)

VersionArgument = Annotated[str, Parameter(help="A finished version.")]


def approve(
    version: VersionArgument,
    /,
    *,
    reason: ReasonOption = "",
    by: ByOption = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Make a version champion, whatever the gate said; the next version starts from it.

    For example:

    ```
    align approve rlhf-v3
    align approve rlhf-v3 --reason "read 50 answers, fine" --by ana
    ```
    """
    _decide(version, True, reason, by, workspace, json)


def reject(
    version: VersionArgument,
    /,
    *,
    reason: ReasonOption,
    by: ByOption = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Hold a version back. It stays in the history; the next version starts from the champion.

    For example:

    ```
    align reject rlhf-v3 --reason "talks too long"
    ```
    """
    _decide(version, False, reason, by, workspace, json)


def _decide(
    version: str,
    approved: bool,
    reason: str,
    by: str | None,
    workspace: WorkspaceOption,
    json: bool,
) -> None:
    from dataclasses import asdict

    from alignment.cli.results import check_version
    from alignment.pipeline.approval import Decisions, decide
    from alignment.tracking.rebuild import note_decision
    from flows.resume_suspended import wake

    program = load_to_change(workspace, json=json)
    check_version(program, version)
    made = decide(program.workspace, version, approved=approved, reason=reason, by=by)
    now_champion = Decisions.load(program).champion
    note_decision(program)
    woken = wake(program.workspace, version)
    if json:
        print_json({**asdict(made), "champion": now_champion})
        return
    verb = "approved" if made.approved else "rejected"
    print(f"{version} {verb} by {made.by}; champion: {now_champion}")
    if woken:
        print(f"{woken} suspended flow run{'s' if woken > 1 else ''} of Prefect resumed")
    else:
        print(f"go on with: align resume -w {program.workspace}")
