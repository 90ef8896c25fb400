"""The flow `rlhf-program`: every version that can be done now."""

from typing import Any

from prefect import flow
from prefect.states import Completed

from alignment.pipeline.approval import Decisions, WaitingForDecision
from alignment.pipeline.readiness import frontier
from flows.definitions.approval import await_decision
from flows.definitions.carried_out import carried_out
from flows.definitions.iteration import iteration
from flows.definitions.parameters import Config, Until, Workspace
from flows.definitions.run_labels import PROCESS, deployed, remember, rename, this_process
from flows.definitions.session import SKIPPED, Session, opened


@flow(name="rlhf-program", persist_result=False)
def program(workspace: Workspace = "", config: Config = "", until: Until = "") -> Any:
    """Run every version in order, each as a subflow, as far as preferences and decisions allow.

    Args:
        workspace: directory of the program on the machine that works.
        config: the program's YAML file; empty: as it was last run in the workspace.
        until: stop after this version; empty: go as far as possible.

    Raises:
        AlignError: a stage failed; later ones are not begun.
    """
    remember(**{PROCESS: this_process()})
    while True:
        with opened(workspace, config, f"program-{until}") as session:
            if session is None:
                return Completed(name=SKIPPED, message="another run waits to do the same")
            done = all_versions(session, workspace, until)
            current = session.runner.program
        left = frontier(current, until or None)
        waiting = left.waiting or (Decisions.load(current).awaited(done[-1]) if done else None)
        if waiting is None:
            return Completed(message=f"{done[-1]} is done" if done else "nothing to do")
        if (
            not isinstance(waiting, WaitingForDecision)
            or not deployed()
            or not await_decision(current, waiting)
        ):
            return Completed(name="Waiting", message=waiting.message)


def all_versions(session: Session, workspace: str, until: str) -> list[str]:
    """Every version that can be done now; more may become possible meanwhile."""
    done: list[str] = []
    while left := [name for name in session.versions(until or None) if name not in done]:
        if deployed():
            rename(f"{session.runner.program.name} {left[0]}–{left[-1]}")
        for version in left:
            carried_out(iteration, version, workspace)
            done.append(version)
    return done
