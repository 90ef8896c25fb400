"""The flow `rlhf-iteration`: the stages of one version, in order.

Stages that do not need each other may run side by side (`orchestration.parallel`).
"""

from collections.abc import Sequence
from typing import Any

from prefect import flow
from prefect.states import Completed

from alignment.config.load import for_version
from alignment.errors import AlignError
from alignment.execution.runner import Runner
from alignment.operations.outbox import fill_outbox
from alignment.pipeline.approval import Decisions, WaitingForDecision
from alignment.pipeline.invalidate import set_aside
from alignment.pipeline.readiness import frontier, waits_for
from alignment.pipeline.shared_stages import groups
from flows.definitions.approval import await_decision
from flows.definitions.events import PAIRS_WAITING, VERSION_DONE, emit
from flows.definitions.parameters import Config, FromStage, Version, Workspace
from flows.definitions.run_labels import (
    PROCESS,
    REDONE,
    VERSION,
    deployed,
    is_subflow,
    remember,
    remembered,
    rename,
    this_process,
)
from flows.definitions.session import SKIPPED, Session, opened, run_log
from flows.definitions.stage_task import run_stage
from flows.definitions.version_card import show_card


@flow(name="rlhf-iteration", flow_run_name="{version}", persist_result=False)
def iteration(
    version: Version = "next",
    workspace: Workspace = "",
    config: Config = "",
    from_stage: FromStage = "",
) -> Any:
    """Run every stage of a version that is not done.

    The flow ends at once if the version must wait for preferences or for a decision on the
    previous version, or if another run is queued for the same work.

    Args:
        version: `next` is the first version that is not done; or rlhf-v1, rlhf-v2 …
        workspace: directory of the program on the machine that works.
        config: the program's YAML file; empty: as it was last run in the workspace.
        from_stage: do this stage and what depends on it again; empty: only what is not done.

    Raises:
        AlignError: a stage failed; later ones are not begun.
    """
    remember(**{PROCESS: this_process()})
    target = remembered(VERSION) or version
    while True:
        with opened(workspace, config, f"iteration-{target}-{from_stage}") as session:
            if session is None:
                return Completed(name=SKIPPED, message="another run waits to do the same")
            program = session.runner.program
            if target == "next":
                unfinished = frontier(program).version
                if unfinished is None:
                    return Completed(name="NothingToDo", message="every version is done")
                # Base and SFT count as part of the first version.
                target = program.versions[0].name if unfinished in ("base", "sft") else unfinished
            remember(**{VERSION: target})
            rename(target)
            waiting = advance(session, target, from_stage)
        waiting = waiting or Decisions.load(program).awaited(target)
        if waiting is None:
            return Completed(message=f"{target} is done")
        if (
            not isinstance(waiting, WaitingForDecision)
            or is_subflow()
            or not deployed()
            or not await_decision(program, waiting)
        ):
            return Completed(name="Waiting", message=waiting.message)
        if waiting.version == target:
            return Completed(message=f"{target} is done and decided on")


def advance(session: Session, version: str, from_stage: str) -> AlignError | None:
    """Run a version after finishing earlier ones. Returns what it waits for, if anything."""
    program = session.runner.program
    hand_out(session)
    while True:
        reachable = frontier(program, version)
        if reachable.waiting is not None:
            return reachable.waiting
        if reachable.version in (None, version):
            break
        carry_out(session, reachable.version)
    waiting = waits_for(program, version)
    if waiting is None:
        if from_stage:
            redo(session, version, from_stage)
        carry_out(session, version)
    return waiting


def carry_out(session: Session, version: str) -> None:
    """Run the stages of a version, in order."""
    nodes, runner = session.of_version(version), session.runner
    config = for_version(runner.program, version)
    for group in groups(nodes, config) if runner.parallel else [[node] for node in nodes]:
        if len(group) > 1:
            futures = [run_stage.with_options(name=node.stage).submit(node.key) for node in group]
            wait_for(session.runner, futures)
            for future in futures:
                future.result()
        else:
            for node in group:
                task: Any = run_stage.with_options(name=node.stage)
                task(node.key)
    if session.done_now & {node.key for node in session.of_version(version)}:
        emit(session.runner.workspace, VERSION_DONE, version=version)
        show_card(session.runner.program, version)
    hand_out(session)


def wait_for(runner: Runner, futures: Sequence[Any]) -> None:
    """Wait for stages that run in threads; an interrupt of this thread interrupts them too."""
    try:
        for future in futures:
            future.wait()
    except BaseException:
        runner.interrupt()
        try:
            for future in futures:
                future.wait()
        except BaseException:
            runner.interrupt()
            raise
        raise


def hand_out(session: Session) -> None:
    """Export the newest pairs for annotators and emit an event, unless that has been done.

    Every run checks this, because the process that collected the pairs may have died before.
    """
    program = session.runner.program
    export = fill_outbox(program, run_log())
    if export is not None:
        payload = {"version": export.version, "tasks": export.tasks, "file": str(export.file)}
        emit(session.runner.workspace, PAIRS_WAITING, **payload)


def redo(session: Session, version: str, stage: str) -> None:
    """Set a stage's outputs aside, once per flow run; a retry continues instead."""
    name = f"{version}/{stage}"
    if remembered(REDONE) != name:
        set_aside(session.runner.program, version, stage)
        remember(**{REDONE: name})
