"""An empty, migrated SQLite database of a library, put in place whole or not at all.

A library makes one by dozens of migrations of the file itself, and SQLite commits each step of
them: a process that is killed in between leaves a database that never opens again. So one is made
elsewhere and put in place by one operation. A template within the virtual environment saves new
workspaces the migrations, which take seconds.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

from alignment.errors import AlignError

Make = Callable[[Path], object]
"""Makes a database at a path in a folder that holds nothing else."""


def template_path(library: str) -> Path:
    """Where the template of the installed library lies."""
    return Path(sys.prefix) / "share" / "align" / f"{library}-{version(library)}.db"


def make_template(library: str, make: Make) -> Path:
    """Make the template, unless it is there.

    Raises:
        AlignError: the library could not make a database.
    """
    path = template_path(library)
    path.parent.mkdir(parents=True, exist_ok=True)
    _put(path, make)
    return path


def provide(database: Path, library: str, make: Make) -> None:
    """Put an empty database at this path, unless there is one.

    Raises:
        AlignError: the library could not make one.
    """
    template = template_path(library)
    copy = partial(shutil.copyfile, template)
    _put(database, copy if template.exists() else make)


def run(library: str, arguments: list[str], environment: Mapping[str, str], folder: Path) -> None:
    """Have the library make its database in a process of its own, which takes its connections
    along.

    Raises:
        AlignError: it failed.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise AlignError(f"{library} could not make a database: {last}", where=str(folder))


def _put(database: Path, make: Make) -> None:
    if database.exists():
        return
    with tempfile.TemporaryDirectory(prefix=f".{database.name}-", dir=database.parent) as folder:
        fresh = Path(folder) / database.name
        make(fresh)
        try:
            os.link(fresh, database)  # unlike a rename it never replaces what is there
        except FileExistsError:
            return  # another process was faster
        except OSError:  # a file system without links
            fresh.replace(database)
