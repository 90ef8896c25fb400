"""A person's decision in Prefect: the run suspends, without a process, until somebody answers.

The answer comes through the form in Prefect's pages or from `align approve`; either way the record
in the workspace counts (`alignment.pipeline.approval`), and a run that is resumed finds it there.
"""

from pathlib import Path
from typing import Literal

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.flow_runs import resume_flow_run, suspend_flow_run
from prefect.input import RunInput
from pydantic import Field

from alignment.config.program import ProgramConfig
from alignment.pipeline.approval import WaitingForDecision, decide, find_decision, find_verdict
from flows.definitions.dead_runs import in_state
from flows.definitions.events import APPROVAL_AWAITED, emit
from flows.definitions.run_labels import labels_of, remember, this_run
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


def await_decision(program: ProgramConfig, waiting: WaitingForDecision) -> bool:
    """Suspend this flow run until a person has decided and the decision is recorded.

    A rejection without a reason brings the form back. Returns False at once if another run of this
    workspace is already suspended for the same decision.
    """
    workspace = program.workspace.resolve()
    key = pause_key(workspace, waiting.version)
    here = this_run()
    if any(here is None or run.id != here.id for run in suspended(workspace, key)):
        return False
    remember(**{AWAITS: f"{workspace}|{key}"})
    emit(workspace, APPROVAL_AWAITED, version=waiting.version, verdict=waiting.verdict)
    answer = _ask(key, described(program, waiting))
    attempts = 1
    while find_decision(workspace, waiting.version) is None and (
        answer.decision == "reject" and not answer.reason.strip()
    ):
        answer = _ask(f"{key}-{attempts}", f"**{NEEDED}**\n\n{described(program, waiting)}")
        attempts += 1
    if find_decision(workspace, waiting.version) is None:
        decide(
            workspace,
            waiting.version,
            approved=answer.decision == "approve",
            reason=answer.reason,
            by=answer.by,
        )
        from alignment.tracking.rebuild import note_decision

        note_decision(program)
    return True


def _ask(key: str, description: str) -> Decision:
    """The answer to one form. Without one this ends the process; once a person has answered,
    Prefect runs the flow again from the top, and this call returns the answer."""
    form = Decision.with_initial_data(description=description)
    return suspend_flow_run(wait_for_input=form, timeout=PATIENCE, key=key)


def pause_key(workspace: Path, version: str) -> str:
    """Identifies the decision: this version with its present verdict."""
    verdict = find_verdict(workspace, version)
    assert verdict is not None  # only versions with a verdict wait
    return f"{version}-{verdict.fingerprint[:12]}"


def described(program: ProgramConfig, waiting: WaitingForDecision) -> str:
    """The figures behind the decision, as markdown."""
    note = note_of(program, waiting.version)
    return f"**{waiting.version}**\n\n{note or waiting.verdict}"


def suspended(workspace: Path, key: str | None = None) -> list[FlowRun]:
    """Flow runs of a workspace that wait for a decision (on `key`)."""
    paused = FlowRunFilter(state=in_state(StateType.PAUSED))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=paused)
    matching = []
    for run in runs:
        where, _, what = str(labels_of(run).get(AWAITS, "")).rpartition("|")
        if where == str(workspace.resolve()) and key in (None, what):
            matching.append(run)
    return matching


def resume_decided(workspace: Path, version: str) -> int:
    """Resume the runs that wait for a decision that is recorded now; returns how many."""
    decision = find_decision(workspace, version)
    if decision is None:
        return 0
    word = "approve" if decision.approved else "reject"
    answer = {"decision": word, "reason": decision.reason, "by": decision.by}
    runs = suspended(workspace, pause_key(workspace, version))
    for run in runs:
        resume_flow_run(run.id, run_input=answer)
    return len(runs)
