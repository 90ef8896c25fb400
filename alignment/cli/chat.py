"""`align chat` and `align export`: use a version."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from alignment.cli.common import WorkspaceOption, load_workspace


def chat(
    version: str,
    /,
    *,
    vs: str | None = None,
    temperature: float = 0.7,
    max_new_tokens: int = 256,
    workspace: WorkspaceOption = None,
) -> None:
    """Talk with a version in the terminal, or with two side by side, through the program's engine.

    For example:

    ```
    align chat rlhf-v5
    align chat rlhf-v5 --vs sft
    align chat champion --temperature 1.0
    ```

    Parameters
    ----------
    version
        `base`, `sft`, `rlhf-v1` …, `champion`; `rlhf-v1/student` where there is a student.
    vs
        A second version that answers the same.
    temperature
        0 answers greedily.
    """
    from alignment.cli.chat_session import Session, open_served, open_session, talk
    from alignment.cli.results import policy_dir

    program = load_workspace(workspace)
    names = [version] if vs is None else [version, vs]
    sessions: list[Session] = []
    with ExitStack() as stack:
        for name in names:
            path = policy_dir(program, name)
            settings: dict[str, Any] = {
                "name": name,
                "temperature": temperature,
                "max_new_tokens": max_new_tokens,
            }
            if program.inference.engine == "transformers":
                sessions.append(open_session(path, program.compute.device, **settings))
            else:
                sessions.append(stack.enter_context(open_served(path, program, **settings)))
        talk(sessions)


def export(
    version: str,
    directory: Path,
    /,
    *,
    dtype: Literal["float32", "bfloat16", "float16"] | None = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Write a version as a plain Hugging Face directory (adapters merged).

    For example:

    ```
    align export rlhf-v5 my-model
    align export champion my-model --dtype bfloat16
    ```

    Parameters
    ----------
    version
        `base`, `sft`, `rlhf-v1` …, `champion`; `rlhf-v1/student` where there is a student.
    directory
        New or empty directory to write to.
    dtype
        Number format of the weights; default: that of the version, which is float32 so that the
        next version loses nothing. bfloat16 takes half the space.
    """
    from alignment.cli.results import policy_dir
    from alignment.models.export import export_policy as write

    program = load_workspace(workspace)
    write(policy_dir(program, version), directory, dtype)
    print(directory)
