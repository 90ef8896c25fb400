"""Calls a flow for what it does, when nobody needs the value that it returns."""

from typing import Any

from prefect.exceptions import MissingResult


def carried_out(flow: Any, *arguments: Any, **named: Any) -> None:
    """Run a flow to its end.

    A busy server may answer so late that Prefect tells it the final state twice. To the second it
    answers with what it has, which lacks the value, and Prefect takes that for an error, although
    the flow is done.

    Raises:
        Exception: what the flow raised, unchanged.
    """
    completed: list[Any] = []

    def note(_flow: Any, _run: Any, state: Any) -> None:
        completed.append(state)

    watched = flow.with_options(on_completion=[*flow.on_completion_hooks, note])
    try:
        watched(*arguments, **named)
    except MissingResult:
        if not completed:  # it is what the flow itself failed with
            raise
