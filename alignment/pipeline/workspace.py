"""The directory that a program lives in, and the program as it was last run, kept there."""

from __future__ import annotations

import tempfile
from pathlib import Path

from alignment.config.load import check_program
from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.pipeline.format import as_record, format_of, read_record
from alignment.pipeline.migrate import todays_program
from alignment.utils.files import atomic_write_json

PROGRAM = "program.json"


def make_workspace(path: Path) -> None:
    """Create the workspace, or say why it cannot be.

    Raises:
        AlignError: it is a file, or cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        # A name of its own: two commands may look at the same time.
        with tempfile.NamedTemporaryFile(dir=path, prefix=".writable-"):
            pass
    except OSError as error:
        raise AlignError(
            f"cannot write the workspace: {error.strerror}",
            where=str(path),
            remedy="set `workspace` to a directory you may write: --set workspace=DIR",
        ) from None


def is_workspace(path: Path) -> bool:
    """Whether a program was ever run, or served, in this directory."""
    return (path / PROGRAM).is_file()


def no_workspace(path: Path) -> AlignError:
    """The error for a directory that is none."""
    return AlignError(
        f"{path} is no workspace: it holds no {PROGRAM}", remedy="start one with `align run CONFIG`"
    )


def is_kept(program: ProgramConfig) -> bool:
    """Whether its workspace holds just this program."""
    path = program.workspace / PROGRAM
    return path.is_file() and read_record(path) == program.model_dump(mode="json")


def keep_program(program: ProgramConfig) -> None:
    """Write the program down for later commands."""
    atomic_write_json(program.workspace / PROGRAM, as_record(program.model_dump(mode="json")))


def kept_program(workspace: Path) -> ProgramConfig:
    """The program of a workspace, as it was last run; its path is where it lies now.

    An older release's is translated; it is written in today's words by the next run.

    Raises:
        AlignError: there is none, or it is wrong.
    """
    if not is_workspace(workspace):
        raise no_workspace(workspace)
    path = workspace / PROGRAM
    values = todays_program(read_record(path), format_of(path)) | {"workspace": str(workspace)}
    return check_program(values, source=str(path))
