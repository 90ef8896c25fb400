"""The workspaces below `./workspaces`, and which of them commands work on when none is named."""

from __future__ import annotations

import os
from pathlib import Path

from alignment.config.location import expanded
from alignment.errors import AlignError, ConfigError
from alignment.pipeline.workspace import PROGRAM, is_reproduction, is_workspace, no_workspace

FOLDER = Path("workspaces")
PIN = FOLDER / "in-use.txt"
"""One line: the directory that `align use` chose, as it is seen from here if it lies below."""


def here() -> list[Path]:
    """The workspaces below `./workspaces` by name, without reproductions."""
    found = sorted(path.parent for path in FOLDER.glob(f"*/{PROGRAM}"))
    return [path for path in found if not is_reproduction(path)]


def existing(path: Path) -> Path:
    """`path` with `~` replaced, if it is a workspace.

    Raises:
        AlignError: it is none.
    """
    try:
        path = Path(expanded(str(path)))
    except ValueError as error:
        raise ConfigError(str(error), where="--workspace") from None
    if not is_workspace(path):
        raise no_workspace(path)
    return path


def pinned() -> Path | None:
    """What `align use` chose, or None.

    Raises:
        AlignError: it is no workspace any more.
    """
    try:
        path = Path(PIN.read_text(encoding="utf-8").strip())
    except FileNotFoundError:
        return None
    if not is_workspace(path):
        raise AlignError(
            f"the workspace in use, {path}, is gone",
            where=str(PIN),
            remedy="choose another: align use NAME, or none: align use --none",
        )
    return path


def pin(path: Path) -> None:
    """Have commands in this directory work on `path` when no workspace is named."""
    FOLDER.mkdir(exist_ok=True)
    inside = path.resolve().is_relative_to(Path.cwd())
    # Relative, so that a copy of the whole folder works on its own copy.
    shown = os.path.relpath(path.resolve()) if inside else str(path.resolve())
    PIN.write_text(f"{shown}\n", encoding="utf-8")


def unpin() -> None:
    """Choose none."""
    PIN.unlink(missing_ok=True)


def chosen() -> Path:
    """What is in use, else the only workspace here.

    Raises:
        AlignError: there is none, or there are several.
    """
    if (path := pinned()) is not None:
        return path
    found = here()
    if not found:
        raise AlignError(
            "no workspace found below ./workspaces",
            remedy="start one with `align run CONFIG`, or name it: --workspace DIR",
        )
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise AlignError(
            f"there are {len(found)} workspaces below ./workspaces, and none is named: {names}",
            remedy=f"align use {found[0].name} chooses one for good, --workspace DIR for once",
        )
    return found[0]
