"""Runs of a deployment without the processes that serve it: each is carried out in this one."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any
from uuid import UUID


def keep_program(program: Any, **settings: dict[str, Any]) -> None:
    """Write a program down in its workspace, as a deployment finds it; tracking off."""
    values = program.model_dump(mode="json")
    for section, changed in {"tracking": {"enabled": False}, **settings}.items():
        values[section] |= changed
    program.workspace.mkdir(parents=True, exist_ok=True)
    (program.workspace / "program.json").write_text(json.dumps(values))


def ask_for_version(workspace: Path, name: str) -> UUID:
    """A run of a deployment of the iteration, scheduled."""
    from prefect.client.orchestration import get_client

    from flows.definitions.iteration import iteration

    made: Any = iteration.to_deployment(
        name=name, parameters={"workspace": str(workspace.resolve())}
    )
    with get_client(sync_client=True) as client:
        return client.create_flow_run_from_deployment(made.apply()).id


def carry_out(run_id: UUID) -> tuple[str, str]:
    """What a process of the deployment does with a run; its state and what it says."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import Pause
    from prefect.flow_engine import run_flow

    from flows.definitions.iteration import iteration

    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_id)
        with contextlib.suppress(Pause):
            run_flow(iteration, flow_run=run, parameters=run.parameters, return_type="state")
        state = client.read_flow_run(run_id).state
    assert state is not None
    return state.name or "", state.message or ""
