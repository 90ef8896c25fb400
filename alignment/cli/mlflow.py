"""`align mlflow`: the history in MLflow, written anew or brought up to date from the ledger."""

from __future__ import annotations

from cyclopts import App

from alignment.cli.common import JsonOption, WorkspaceOption, load_to_change, print_json

app = App(name="mlflow", help="Write the history of a workspace to MLflow from its ledger.")


@app.command
def rebuild(*, workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """Set the old history aside and write the whole of it anew from the ledger.

    Nothing is deleted: a workspace's own database is renamed, an experiment on a server goes to
    MLflow's bin under another name.

    For example:

    ```
    align mlflow rebuild
    align mlflow rebuild --workspace workspaces/demo
    ```
    """
    from dataclasses import asdict

    from alignment.tracking.rebuild import rebuild as write_anew

    done = write_anew(load_to_change(workspace, json=json))
    if json:
        print_json(asdict(done))
    else:
        print(f"{done.runs} runs written to {done.uri}")
        if done.kept is not None:
            print(f"the old history is kept: {done.kept}")
    _complain(done.problems)


@app.command
def update(*, workspace: WorkspaceOption = None) -> None:
    """Write what MLflow does not have yet, and leave the rest as it is.

    For example:

    ```
    align mlflow update
    ```
    """
    from alignment.tracking.rebuild import catch_up

    problems = catch_up(load_to_change(workspace))
    _complain(problems)
    print("MLflow has everything that the ledger has")


def _complain(problems: list[str]) -> None:
    from alignment.errors import AlignError

    if problems:
        raise AlignError(
            f"MLflow does not have everything: {'; '.join(problems)}",
            remedy="see that the store is there and may be written, then call this again",
        )
