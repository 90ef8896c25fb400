"""`align rewards`: how far a version's reward models can be trusted."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from alignment.cli.common import JsonOption, WorkspaceOption, load_workspace, print_json


def rewards(
    version: Annotated[
        str | None, Parameter(help="Default: the newest with reward models.")
    ] = None,
    /,
    *,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Show a version's reward models: held-out accuracy by strength, test set and batch, unsafe
    answers found, length bias, calibration, and what more comparisons would bring.

    The pictures lie beside the figures: accuracy.png, calibration.png and growth.png of the stages
    `reward_helpfulness` and `reward_safety`, in the workspace and in MLflow.

    For example:

    ```
    align rewards
    align rewards rlhf-v3
    align rewards rlhf-v3 --json
    ```
    """
    from alignment.cli.results import check_version
    from alignment.errors import AlignError
    from alignment.operations.status import done_stages
    from alignment.utils.files import read_json

    program = load_workspace(workspace)
    evaluations = {
        name: {
            stage: directory
            for stage, directory in stages.items()
            if stage.startswith(("reward_", "guard_"))
        }
        for name, stages in done_stages(program, any_code=True).items()
    }
    if version is not None:
        check_version(program, version)
    names = [name for name in program.version_names if evaluations.get(name)]
    if not names or (version is not None and version not in names):
        raise AlignError(
            f"{version or 'this program'} has no reward models yet",
            remedy="`align run CONFIG`; see `align status`",
        )
    name = version or names[-1]
    figures = {
        stage: read_json(directory / "evaluation.json")
        for stage, directory in sorted(evaluations[name].items(), reverse=True)
    }
    if json:
        print_json({"version": name, "models": figures})
        return
    from rich.console import Console

    from alignment.reporting.reward_table import reward_tables

    Console(highlight=False).print(reward_tables(name, figures))
    for stage, directory in evaluations[name].items():
        pictures = sorted(path.name for path in directory.glob("*.png"))
        print(f"{stage}: {directory}/{{{','.join(pictures)}}}")
