"""A version's card among the artifacts of its run in Prefect's pages."""

from prefect.artifacts import create_markdown_artifact

from alignment.config.program import ProgramConfig


def note_of(program: ProgramConfig, version: str) -> str:
    """What the version is, how good and made from what, as markdown; empty if nothing is known."""
    from alignment.tracking.describe import version_note
    from alignment.tracking.history import read_history
    from alignment.tracking.standings import Standings

    versions = [history for history in read_history(program) if history.begun]
    for history in versions:
        if history.version == version:
            return version_note(history, Standings.of(program, versions))
    return ""


def show_card(program: ProgramConfig, version: str) -> None:
    """Keep the card with the run that is being carried out."""
    note = note_of(program, version)
    if note:
        create_markdown_artifact(
            markdown=f"# {version}\n\n{note}", key=f"card-{version}", description=version
        )
