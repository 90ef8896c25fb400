"""`align serve` and `align down`: schedules, servers and pages of a program."""

from __future__ import annotations

from pathlib import Path

from alignment.cli.common import SetOption, WorkspaceOption, find_workspace, name_workspace


def serve(
    config: Path,
    /,
    *,
    set_: SetOption = (),
    mlflow_port: int = 5000,
    prefect_port: int = 4200,
) -> None:
    """Bring up, on loopback, Prefect's server, MLflow's server and the program's deployments:
    intake, iteration and program, by the clock and by events. Ctrl-C stops everything.

    What dies is started again; a run whose process was killed goes on from its last checkpoint. A
    version that is added to the file is taken over at once; any other edit asks for a restart.

    For example:

    ```
    align serve configs/demo.yaml
    align serve configs/llama2.yaml --set base.path=DIR --set data.path=FILES
    align serve configs/demo.yaml --prefect-port 4201 --mlflow-port 5001
    ```

    Parameters
    ----------
    config
        The program's YAML file.
    """
    from alignment.config.load import load_program
    from flows.serving.serve import serve as serve_program

    program = load_program(config, set_)
    name_workspace(program.workspace)
    serve_program(
        program,
        config=config,
        overrides=set_,
        mlflow_port=mlflow_port,
        prefect_port=prefect_port,
    )


def down(*, workspace: WorkspaceOption = None) -> None:
    """Stop what `align serve` of a workspace started, also what a killed one left behind.

    For example:

    ```
    align down
    align down --workspace workspaces/hh
    ```
    """
    from flows.serving import state_file

    directory = find_workspace(workspace)
    name_workspace(directory)
    stopped = state_file.down(directory)
    print("\n".join(f"stopped: {name}" for name in stopped) or f"nothing serves {directory}")
