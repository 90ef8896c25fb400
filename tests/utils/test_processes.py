"""Children that end with their parent, at whatever moment it dies."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells of a death")
def test_a_parent_that_died_before_the_kernel_was_asked_is_noticed() -> None:
    """The grandchild's parent is not the process that wanted it: as if that one had died."""
    script = textwrap.dedent(
        """
        import os, sys
        from alignment.utils.processes import die_with_parent
        ask = die_with_parent()
        if os.fork() == 0:
            if (grandchild := os.fork()) == 0:
                ask()
                os._exit(0)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
        sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
        """
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": root}, check=False)
    assert done.returncode == 128 + 15
