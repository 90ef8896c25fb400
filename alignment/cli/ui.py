"""`align ui`: the MLflow and Prefect pages."""

from __future__ import annotations

from alignment.cli.common import WorkspaceOption, load_to_change


def ui(
    *, workspace: WorkspaceOption = None, mlflow_port: int = 5000, prefect_port: int = 4200
) -> None:
    """Start the MLflow and Prefect pages of a workspace on loopback; Ctrl-C stops both.

    For example:

    ```
    align ui
    align ui --mlflow-port 5001 --prefect-port 4201
    ```
    """
    from flows.serving.serve import show_pages

    show_pages(load_to_change(workspace), mlflow_port=mlflow_port, prefect_port=prefect_port)
