"""A person's decision in Prefect: the run suspends, without a process, until somebody answers.

The answer comes through the form in Prefect's pages or from `align approve`; either way the record
in the workspace counts (`alignment.pipeline.approval`), and a run that is resumed finds it there.
"""

from pathlib import Path
from typing import Literal, cast

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.flow_runs import resume_flow_run, suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from alignment.config.program import ProgramConfig
from alignment.pipeline.approval import WaitingForApproval, decide, find_approval, find_verdict
from flows.definitions.events import APPROVAL_AWAITED, emit
from flows.definitions.run_labels import labels_of, remember
from flows.definitions.version_card import note_of

PATIENCE = 365 * 86400  # seconds; Prefect fails a suspended run that is older
AWAITS = "align.awaits"
NEEDED = "A rejection needs a reason: please give one, it is kept in the history."


class Decision(RunInput):
    """The form."""

    decision: Literal["approve", "reject"] = Field(
        description="Approve: this version becomes champion and the next one starts from it. "
        "Reject: it stays in the history and the next one starts from the champion."
    )
    reason: str = Field(default="", description="Needed for a rejection; kept in the history.")
    by: str = Field(description="Who decides.", min_length=1)


def await_decision(program: ProgramConfig, waiting: WaitingForApproval) -> bool:
    """Suspend this flow run until a person has decided; returns once that is written down.

    A rejection without a reason is asked about again.

    Returns:
        False if another run of this workspace is suspended for the same decision already: then
        nobody needs this one to wait.
    """
    workspace = program.workspace.resolve()
    key = pause_key(workspace, waiting.version)
    if [run for run in suspended(workspace, key) if not _is_this(run)]:
        return False
    remember(**{AWAITS: f"{workspace}|{key}"})
    emit(workspace, APPROVAL_AWAITED, version=waiting.version, verdict=waiting.verdict)
    answer = _ask(key, described(program, waiting))
    asked = 1
    while find_approval(workspace, waiting.version) is None and _lacks_reason(answer):
        answer = _ask(f"{key}-{asked}", f"**{NEEDED}**\n\n{described(program, waiting)}")
        asked += 1
    if find_approval(workspace, waiting.version) is None:
        decide(
            workspace,
            waiting.version,
            approved=answer.decision == "approve",
            reason=answer.reason,
            by=answer.by,
        )
        from alignment.tracking.decisions import note_decision

        note_decision(program)
    return True


def _ask(key: str, description: str) -> Decision:
    """The answer to one question. Ends this process, unless somebody has answered: then the flow
    runs again from its top, and comes by here with the answers so far."""
    form = Decision.with_initial_data(description=description)
    return cast(Decision, suspend_flow_run(wait_for_input=form, timeout=PATIENCE, key=key))


def _lacks_reason(answer: Decision) -> bool:
    return answer.decision == "reject" and not answer.reason.strip()


def pause_key(workspace: Path, version: str) -> str:
    """Names the question: this version, as it is now."""
    verdict = find_verdict(workspace, version)
    assert verdict is not None  # somebody waits for a word on it
    return f"{version}-{verdict.fingerprint[:12]}"


def described(program: ProgramConfig, waiting: WaitingForApproval) -> str:
    """What a person should know before deciding, as markdown."""
    note = note_of(program, waiting.version)
    return f"**{waiting.version}**\n\n{note or waiting.verdict}"


def suspended(workspace: Path, key: str | None = None) -> list[FlowRun]:
    """Flow runs of a workspace that wait for a decision (on `key`)."""
    paused = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED]))
    )
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=paused)
    found = []
    for run in runs:
        where, _, what = str(labels_of(run).get(AWAITS, "")).rpartition("|")
        if where == str(workspace.resolve()) and key in (None, what):
            found.append(run)
    return found


def resume_decided(workspace: Path, version: str) -> int:
    """Wake the runs that wait for a decision which `align approve` has just written down.

    Returns:
        How many there were.
    """
    word = find_approval(workspace, version)
    if word is None:
        return 0
    woken = 0
    for run in suspended(workspace, pause_key(workspace, version)):
        resume_flow_run(
            run.id,
            run_input={
                "decision": "approve" if word.approved else "reject",
                "reason": word.reason,
                "by": word.by,
            },
        )
        woken += 1
    return woken


def _is_this(run: FlowRun) -> bool:
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    return bool(context and context.flow_run and context.flow_run.id == run.id)
