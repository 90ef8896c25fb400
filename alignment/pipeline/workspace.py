"""The directory of a program, and the program file in it, as last run."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from alignment.config.load import check_program
from alignment.config.program import ProgramConfig
from alignment.errors import AlignError, DamagedError
from alignment.pipeline.format import FORMAT, as_record, read_record
from alignment.pipeline.migrate import Untranslatable, todays_program
from alignment.utils.files import atomic_write_json

PROGRAM = "program.json"
RUN_AGAIN = "restore it from a copy, or write it anew: align run CONFIG"
REPRODUCTION = "reproduction.json"
"""Marks a workspace as made by `align reproduce`: no command works on it unless it is named."""
log = logging.getLogger("alignment")


def make_workspace(path: Path) -> None:
    """Create the workspace if it does not exist.

    Raises:
        AlignError: the path is a file, or the directory cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        # A unique name: two commands may check at the same time.
        with tempfile.NamedTemporaryFile(dir=path, prefix=".writable-"):
            pass
    except OSError as error:
        raise AlignError(
            f"cannot write the workspace: {error.strerror}",
            where=str(path),
            remedy="set `workspace` to a directory you may write: --set workspace=DIR",
        ) from None


def is_workspace(path: Path) -> bool:
    """Whether a program was ever run or served in this directory."""
    return (path / PROGRAM).is_file()


def is_reproduction(path: Path) -> bool:
    """Whether `align reproduce` made this workspace."""
    return (path / REPRODUCTION).is_file()


def no_workspace(path: Path) -> AlignError:
    """The error for a directory that is not a workspace."""
    return AlignError(
        f"{path} is not a workspace: it has no {PROGRAM}",
        remedy="start one with `align run CONFIG`",
    )


def refuse_another(program: ProgramConfig) -> None:
    """Raise an AlignError if the workspace is that of a program with another name."""
    path = program.workspace / PROGRAM
    try:
        name = read_record(path).get("name") if path.is_file() else None
    except DamagedError:
        return  # this run writes it anew
    if name not in (None, program.name):
        raise AlignError(
            f"this workspace is the program {name}'s, and {program.name} would take it over",
            where=str(program.workspace),
            remedy=f"give {program.name} one of its own: --set workspace=DIR; "
            f"or go on with {name}: --set name={name}",
        )


def is_kept(program: ProgramConfig) -> bool:
    """Whether its workspace holds exactly this program."""
    path = program.workspace / PROGRAM
    try:
        kept = read_record(path) if path.is_file() else None
    except DamagedError:
        return False
    return kept == {"format": FORMAT, **program.model_dump(mode="json")}


def keep_program(program: ProgramConfig) -> None:
    """Save the program for later commands.

    Raises:
        AlignError: the workspace is another program's.
    """
    refuse_another(program)
    atomic_write_json(program.workspace / PROGRAM, as_record(program.model_dump(mode="json")))


def kept_program(workspace: Path) -> ProgramConfig:
    """The program of a workspace as last run, with `workspace` set to its present path.

    A program of an older release is translated; the next run saves it under today's names. A
    warning names settings of it that no longer exist.

    Raises:
        AlignError: there is no program, or it is invalid.
    """
    if not is_workspace(workspace):
        raise no_workspace(workspace)
    path = workspace / PROGRAM
    try:
        values, gone = todays_program(read_record(path, RUN_AGAIN))
    except Untranslatable as error:
        raise DamagedError(error.message, where=str(path), remedy=RUN_AGAIN) from None
    if gone:
        log.warning("settings of %s that no longer exist: %s", path, "; ".join(gone))
    values["workspace"] = str(workspace)
    return check_program(values, source=str(path))
