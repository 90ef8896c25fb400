"""One workspace's events start the deployments of that workspace only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml


def matches(trigger: dict[str, str], resource: dict[str, str]) -> bool:
    """Prefect's rule for labels without wildcards."""
    return all(resource.get(label) == value for label, value in trigger.items())


def test_triggers_know_their_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fake_program as fake
    import prefect.events

    from flows.definitions.events import PREFERENCES_ENOUGH, emit
    from flows.serving.deployments import deployments

    mine, other = tmp_path / "a" / "llama2", tmp_path / "b" / "llama2"
    told: list[dict[str, str]] = []  # resources of the events, as Prefect would get them
    # No longer than needed: a module of Prefect's that is imported meanwhile would keep the patch.
    with monkeypatch.context() as patch:
        patch.setattr(
            prefect.events, "emit_event", lambda _event, resource, **_: told.append(resource)
        )
        for workspace in (mine, other):
            emit(workspace, PREFERENCES_ENOUGH, version="rlhf-v1")
    served: list[Any] = [
        trigger.match.model_dump()
        for deployment in deployments(fake.fake_program(mine))
        for trigger in deployment.triggers
    ]
    described = yaml.safe_load((Path(__file__).parents[2] / "prefect.yaml").read_text())
    pooled = [
        {label: mine_of(value, mine) for label, value in trigger["match"].items()}
        for deployment in described["deployments"]
        for trigger in deployment.get("triggers", ())
    ]
    assert len(served) == 2
    assert len(pooled) == 1
    for trigger in (*served, *pooled):
        assert [matches(trigger, resource) for resource in told] == [True, False], trigger


def mine_of(value: str, workspace: Path) -> str:
    """What `prefect deploy` makes of it where ALIGN_WORKSPACE is the workspace."""
    return value.replace("{{ $ALIGN_WORKSPACE }}", str(workspace))
