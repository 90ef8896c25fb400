"""One version as a flow: its stages in order, the two reward models side by side where allowed."""

from collections.abc import Sequence
from typing import Any

from prefect import flow
from prefect.states import Completed

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.execution.runner import Runner
from alignment.operations.annotation_export import collected, export_pairs
from alignment.pipeline.approval import Decisions, WaitingForApproval
from alignment.pipeline.invalidate import set_aside
from alignment.pipeline.node import Node
from alignment.pipeline.readiness import frontier, waits_for
from alignment.preferences.exports import Export
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
from flows.definitions.session import SKIPPED, Session, opened, workspace_of
from flows.definitions.stage_task import run_stage
from flows.definitions.version_card import show_card


@flow(name="rlhf-iteration", flow_run_name="{version}", persist_result=False)
def iteration(
    version: Version = "next",
    workspace: Workspace = "",
    config: Config = "",
    from_stage: FromStage = "",
) -> Any:
    """Do every stage of a version that is not done.

    A version that has to wait for preferences, or for a decision on the one before it, is left
    alone; so is one that another run is already waiting to do.

    Args:
        version: `next` is the first version that is not done; or rlhf-v1, rlhf-v2 …
        workspace: directory of the program on the machine that works.
        config: the program's YAML file; empty: as it was last run in the workspace.
        from_stage: do this stage and what depends on it again; empty: only what is not done.

    Raises:
        AlignError: a stage failed; later ones are not begun.
    """
    remember(**{PROCESS: this_process()})
    wanted = remembered(VERSION) or version
    while True:
        with opened(workspace, config, f"iteration-{wanted}-{from_stage}") as session:
            if session is None:
                return Completed(name=SKIPPED, message="another run waits to do the same")
            program = session.runner.program
            if wanted == "next":
                found = frontier(program).version
                if found is None:
                    return Completed(name="NothingToDo", message="every version is done")
                # What the first version is made from counts as part of it.
                wanted = program.versions[0].name if found in ("base", "sft") else found
            remember(**{VERSION: wanted})
            rename(wanted)
            waiting = advance(session, wanted, from_stage)
        waiting = waiting or Decisions.load(program).awaited(wanted)
        if waiting is None:
            return Completed(message=f"{wanted} is done")
        if not isinstance(waiting, WaitingForApproval) or is_subflow() or not deployed():
            return Completed(name="Waiting", message=waiting.message)
        if not await_decision(program, waiting):
            return Completed(name="Waiting", message=waiting.message)
        if waiting.version == wanted:
            return Completed(message=f"{wanted} is done and decided on")


def advance(session: Session, version: str, from_stage: str) -> AlignError | None:
    """Do a version, and before it whatever earlier ones lack; returns what it waits for, if so.

    Raises:
        AlignError: a stage failed.
    """
    program = session.runner.program
    hand_out(session)
    while True:
        found = frontier(program, version)
        if found.waiting is not None:
            return found.waiting
        if found.version in (None, version):
            break
        carry_out(session, found.version)
    waiting = waits_for(program, version)
    if waiting is None:
        if from_stage:
            redo(session, version, from_stage)
        carry_out(session, version)
    return waiting


def carry_out(session: Session, version: str) -> None:
    """The stages of a version, in order.

    Raises:
        AlignError: a stage failed.
    """
    for group in groups(session.of_version(version)):
        if len(group) > 1 and may_run_together(session.runner):
            futures = [run_stage.with_options(name=node.stage).submit(node.key) for node in group]
            wait_for(session.runner, futures)
            for future in futures:
                future.result()
        else:
            for node in group:
                run_stage.with_options(name=node.stage)(node.key)
    if session.done_now & {node.key for node in session.of_version(version)}:
        emit(workspace_of(session), VERSION_DONE, version=version)
        show_card(session.runner.program, version)
    hand_out(session)


def wait_for(runner: Runner, futures: Sequence[Any]) -> None:
    """Wait for stages that run in threads, and pass on to them what interrupts this one."""
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
    """See to it that the newest pairs lie ready for annotators, and say so once they do.

    Not only by whoever collected them: that process may have died in between.
    """
    program = session.runner.program
    made = fill_outbox(program)
    if made is not None:
        told = {"version": made.version, "tasks": made.tasks, "file": str(made.file)}
        emit(workspace_of(session), PAIRS_WAITING, **told)


def fill_outbox(program: ProgramConfig) -> Export | None:
    """Put the pairs that the newest version collected into the outbox, where people judge and
    nobody has been asked yet."""
    if program.intake.source != "inbox":
        return None
    found = collected(program)
    if not found or not found[-1].pairs or found[-1].exported or found[-1].judged:
        return None
    settings = program.orchestration.outbox
    return export_pairs(
        program,
        found[-1].version,
        tool=settings.tool,
        selection=settings.select,
        count=settings.count,
    )


def redo(session: Session, version: str, stage: str) -> None:
    """Set a stage's outputs aside, once per flow run: a retry goes on instead.

    Raises:
        AlignError: the version has no such stage.
    """
    name = f"{version}/{stage}"
    if remembered(REDONE) != name:
        set_aside(session.runner.program, version, stage)
        remember(**{REDONE: name})


def groups(nodes: Sequence[Node]) -> list[list[Node]]:
    """Neighbours in the plan that do not need one another, by module: the reward models, then
    their guards."""
    found: list[list[Node]] = []
    for node in nodes:
        last = found[-1] if found else []
        needed = set(node.inputs.values())
        alike = bool(last) and node.module == last[-1].module == "reward"
        if alike and not any((other.version, other.stage) in needed for other in last):
            last.append(node)
        else:
            found.append([node])
    return found


def may_run_together(runner: object) -> bool:
    """Whether stages may run at once: only a runner that gives each its own process says so."""
    return bool(getattr(runner, "parallel", False))
