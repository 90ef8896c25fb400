"""The flow `rlhf-program`."""

from prefect import flow

from flows.iteration import iteration
from flows.session import current


@flow(name="rlhf-program", persist_result=False)
def program(program: str, workspace: str) -> None:
    """Do every version in order, each as a subflow.

    Raises:
        AlignError: a stage failed; later ones are not begun.
    """
    for version in current().versions:
        iteration(version)
