"""`align run`: the whole program, or what is left of it."""

from __future__ import annotations

from pathlib import Path

from alignment.cli.common import DiscardOption, PrefectOption, SetOption, WaitOption, name_workspace


def run(
    config: Path,
    /,
    *,
    set_: SetOption = (),
    until: str | None = None,
    prefect: PrefectOption = True,
    wait: WaitOption = False,
    discard_unfinished: DiscardOption = False,
) -> None:
    """Carry out a program: base → SFT → RLHF-V1 … V5. Finished stages are not repeated.

    For example:

    ```
    align run configs/demo.yaml
    align run configs/demo.yaml --set seed=2 --set workspace=workspaces/demo-2
    align run configs/hh.yaml --set base.path=DIR --set intake.path=DIR
    align run configs/demo.yaml --until rlhf-v1
    align run configs/demo.yaml --no-prefect
    ```

    Parameters
    ----------
    config
        The program's YAML file.
    until
        Stop after this version.
    """
    from alignment.cli.launch import run_program
    from alignment.config.load import load_program

    program = load_program(config, set_)
    name_workspace(program.workspace)
    run_program(
        program,
        until=until,
        prefect=prefect,
        wait=wait,
        discard_unfinished=discard_unfinished,
    )
