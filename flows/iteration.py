"""One version as a flow: its stages in order, the two reward models side by side where allowed."""

from collections.abc import Sequence

from prefect import flow

from alignment.plan import Node
from flows.session import current
from flows.stage import stage_task


@flow(name="rlhf-iteration", flow_run_name="{version}", persist_result=False)
def iteration(version: str) -> None:
    """Do every stage of `version` that this run has.

    Raises:
        AlignError: a stage failed; later ones are not begun.
    """
    session = current()
    for group in groups(session.of_version(version)):
        if len(group) > 1 and may_run_together(session.runner):
            futures = [stage_task(node.stage).submit(node.key) for node in group]
            for future in futures:
                future.wait()
            for future in futures:
                future.result()
        else:
            for node in group:
                stage_task(node.stage)(node.key)


def groups(nodes: Sequence[Node]) -> list[list[Node]]:
    """Neighbours in the plan that do not need one another, by module: the reward models."""
    found: list[list[Node]] = []
    for node in nodes:
        last = found[-1] if found else []
        if node.module == "reward" and last and last[-1].module == "reward":
            last.append(node)
        else:
            found.append([node])
    return found


def may_run_together(runner: object) -> bool:
    """Whether stages may run at once: only a runner that gives each its own process says so."""
    return bool(getattr(runner, "parallel", False))
