"""The directory that a program lives in."""

from __future__ import annotations

import tempfile
from pathlib import Path

from alignment.errors import AlignError


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
