"""The flow `rlhf-intake`: complete files in the inbox become batches."""

from collections import Counter
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.states import Completed

from alignment.config.program import ProgramConfig
from alignment.pipeline.readiness import after_the_last, frontier, next_version
from alignment.preferences.inbox import Delivery, delivery_row, ingest_inbox, waiting_comparisons
from alignment.preferences.store import PreferenceStore
from flows.definitions.events import BATCH_ACCEPTED, BATCH_REFUSED, PREFERENCES_ENOUGH, emit
from flows.definitions.parameters import Config, Workspace, read_program
from flows.definitions.run_labels import PROCESS, deployed, remember, rename, this_process
from flows.definitions.session import run_log
from flows.servers.child_process import end_with_parent


@flow(name="rlhf-intake", persist_result=False)
def intake(workspace: Workspace = "", config: Config = "") -> Any:
    """Ingest every complete new file of the inbox as a batch, and report on each.

    Files that are still being written wait for the next run. A refused file does not block the
    others.

    Raises:
        AlignError: the store or the inbox cannot be read or written.
    """
    remember(**{PROCESS: this_process()})
    if deployed():
        end_with_parent()
    program = read_program(workspace, config)
    deliveries = ingest_inbox(
        program.workspace,
        program.intake,
        program.orchestration.settle_seconds,
        say=run_log(),
    )
    report(program, deliveries)
    waiting = waiting_comparisons(PreferenceStore(program.workspace / "preferences"))
    progress = tell_if_enough(program, waiting)
    if not deliveries:
        return Completed(name="NothingNew", message=f"nothing new in the inbox; {progress}")
    counts = Counter(delivery.outcome for delivery in deliveries)
    summary = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    rename(f"{summary}: {', '.join(delivery.file for delivery in deliveries[:3])}")
    return Completed(message=f"{summary}; {progress}")


def report(program: ProgramConfig, deliveries: list[Delivery]) -> None:
    """An event for every file, and one table for all."""
    say = run_log()
    for delivery in deliveries:
        say(f"{delivery.file}: {delivery.outcome} {delivery.error or delivery.batch}")
        name = BATCH_REFUSED if delivery.outcome == "refused" else BATCH_ACCEPTED
        if delivery.outcome != "known":
            emit(program.workspace, name, **delivery_row(delivery))
    if deliveries:
        create_table_artifact(
            table=[delivery_row(delivery) for delivery in deliveries],
            key="deliveries",
            description=f"Files in the inbox of {program.name}",
        )


def tell_if_enough(program: ProgramConfig, waiting: int) -> str:
    """Emit the event that starts the next version if enough comparisons wait; say so in words."""
    required = program.orchestration.min_comparisons
    summary = f"{waiting} comparisons wait, {required} make a version"
    if program.intake.source != "inbox" or waiting < required:
        return summary
    progress = frontier(program)
    unheard = after_the_last(program)
    if unheard is not None:
        return unheard
    if progress.version is None:
        return f"{summary}; but every version of the program is done"
    if progress.waiting is not None:
        return f"{summary}; {progress.waiting.message}"
    # The event names the version, so that a repeated event does not start two versions.
    # Batches that arrive while a version runs are for the version after it.
    version = progress.version
    if version.startswith("rlhf-"):
        version = next_version(program) or version
    emit(program.workspace, PREFERENCES_ENOUGH, version=version, comparisons=waiting)
    return f"{summary}: {version} may begin"
