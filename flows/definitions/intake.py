"""The flow `rlhf-intake`: what lies in the inbox becomes batches."""

from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.states import Completed

from alignment.config.program import ProgramConfig
from alignment.pipeline.readiness import frontier
from alignment.preferences.inbox import Delivery, describe, look_in, waiting_comparisons
from alignment.preferences.store import PreferenceStore
from flows.definitions.events import BATCH_ACCEPTED, BATCH_REFUSED, PREFERENCES_ENOUGH, emit
from flows.definitions.parameters import Config, Workspace, read_program
from flows.definitions.run_labels import PROCESS, deployed, remember, rename, this_process
from flows.definitions.session import run_log
from flows.servers.child_process import end_with_parent


@flow(name="rlhf-intake", persist_result=False)
def intake(workspace: Workspace = "", config: Config = "") -> Any:
    """Take in every complete new file of the inbox, each as a batch; say what became of it.

    Files that are still being written are left for the next time. A refused file does not keep
    the others out.

    Raises:
        AlignError: the store or the inbox cannot be read or written.
    """
    remember(**{PROCESS: this_process()})
    if deployed():
        end_with_parent()
    program = read_program(workspace, config)
    deliveries = look_in(program.workspace, program.intake, program.orchestration.settle_seconds)
    report(program, deliveries)
    have = waiting_comparisons(PreferenceStore(program.workspace / "preferences"))
    told = tell_if_enough(program, have)
    if not deliveries:
        return Completed(name="NothingNew", message=f"nothing new in the inbox; {told}")
    counts = dict.fromkeys(("accepted", "known", "refused"), 0)
    for delivery in deliveries:
        counts[delivery.outcome] += 1
    said = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    rename(f"{said}: {', '.join(delivery.file for delivery in deliveries[:3])}")
    return Completed(message=f"{said}; {told}")


def report(program: ProgramConfig, deliveries: list[Delivery]) -> None:
    """An event for every file, and one table for all."""
    say = run_log()
    for delivery in deliveries:
        say(f"{delivery.file}: {delivery.outcome} {delivery.error or delivery.batch}")
        name = BATCH_REFUSED if delivery.outcome == "refused" else BATCH_ACCEPTED
        if delivery.outcome != "known":
            emit(program.workspace, name, **describe(delivery))
    if deliveries:
        create_table_artifact(
            table=[describe(delivery) for delivery in deliveries],
            key="deliveries",
            description=f"What became of the files in the inbox of {program.name}",
        )


def tell_if_enough(program: ProgramConfig, have: int) -> str:
    """Say in an event, which starts the next version, that it may begin; returns it in words."""
    need = program.orchestration.min_comparisons
    said = f"{have} comparisons wait, {need} make a version"
    if program.intake.source != "inbox" or have < need:
        return said
    found = frontier(program)
    if found.version is None:
        return f"{said}; but every version of the program is done"
    if found.waiting is not None:
        return f"{said}; {found.waiting.message}"
    # Which of them: asked for by name, so that the same event twice is the same version once.
    # While a version runs, what arrives is for the one after it.
    store = PreferenceStore(program.workspace / "preferences")
    version = found.version
    names = program.version_names
    if version.startswith("rlhf-") and store.assignment(version) is not None:
        following = names.index(version) + 1
        if following == len(names):
            return f"{said}; but {version} is the program's last"
        version = names[following]
    emit(program.workspace, PREFERENCES_ENOUGH, version=version, comparisons=have)
    return f"{said}: {version} may begin"
