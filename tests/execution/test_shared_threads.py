"""Stages that run side by side share the threads; one that runs alone has all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fake_program import fake_program

from alignment.execution.runner import Runner


@pytest.mark.parametrize("parallel", [True, False])
def test_threads_of_every_stage(
    tmp_path: Path, stages: Any, monkeypatch: pytest.MonkeyPatch, parallel: bool
) -> None:
    program = fake_program(
        tmp_path / "workspace",
        versions=1,
        tracking={"enabled": False},
        compute={"threads": 3},
        orchestration={"parallel": parallel},
    )
    before, found = torch.get_num_threads(), {}
    monkeypatch.setattr(Runner, "isolated", lambda *_given: False)

    def look(context: Any) -> None:
        found[f"{context.version}/{context.stage}"] = torch.get_num_threads()

    stages.before = look
    try:
        with Runner(program) as runner:
            for node in runner.plan:
                runner.run_node(node)
    finally:
        torch.set_num_threads(before)
    beside = ["reward_helpfulness", "reward_safety", "evaluate", "collect"]
    alone = ["sample", "select", "finetune", "ppo"]
    assert {found[f"rlhf-v1/{stage}"] for stage in beside} == {1 if parallel else 3}
    assert {found[f"rlhf-v1/{stage}"] for stage in alone} == {3}
