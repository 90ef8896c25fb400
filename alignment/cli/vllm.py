"""`align vllm`: the environment of its own that the engine `vllm` needs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cyclopts import App

app = App(name="vllm", help="Install the environment of its own that the engine vllm needs.")


@app.command
def install(
    directory: Path | None = None, /, *, device: Literal["auto", "cpu", "cuda"] = "auto"
) -> None:
    """Install vLLM into an environment of its own, with versions that were tested together.

    It cannot be installed beside the libraries of `align`. All programs of a user share the default
    place; with another, set `inference.vllm.python` to the `bin/python` in it.

    For example:

    ```
    align vllm install
    align vllm install ~/vllm --device cpu
    ```

    Parameters
    ----------
    directory
        New or empty; by default `align/vllm` in the user's data directory.
    device
        `auto`: for GPUs if there is one.
    """
    from alignment.inference.vllm_environment import default_directory
    from alignment.models.load import resolve_device
    from alignment.operations.vllm_install import install as make

    target = (directory or default_directory()).expanduser().absolute()
    found = make(target, gpu=resolve_device(device).type == "cuda", say=print)
    print(f"vLLM {found.version} is ready in {target}")
    if directory is not None:
        print(f"to use it: --set inference.vllm.python={found.python}")
