"""`align` in forks of one process that has imported what it needs.

Most of a short command's time, and seconds of a long one's, go into imports. The fork server is a
process of its own, so that a command shares nothing with the tests but the files on disk.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

PRELOAD = ("alignment.cli.main", "alignment.tracking.follow", "peft", "scipy.stats", "mlflow")
MODELS = ("transformers.models.llama.modeling_llama", "matplotlib.pyplot", "prefect")

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload([*PRELOAD, *MODELS])


def start(words: Sequence[str], cwd: Path, output: tuple[Path, Path]) -> BaseProcess:
    """Begin `align words` in `cwd`; stdout and stderr go into two files."""
    process = _server.Process(target=_align, args=(list(words), cwd, dict(os.environ), output))
    process.start()
    return process


def _align(
    words: list[str], cwd: Path, environment: Mapping[str, str], output: tuple[Path, Path]
) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a fork server for stages blocks some
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in zip((1, 2), output, strict=True):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, stream)
        os.close(file)
    sys.argv = ["align", *words]
    from alignment.cli.main import main

    try:
        main()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        atexit._run_exitfuncs()  # a fork leaves without them
