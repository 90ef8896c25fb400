"""Stages that run side by side share threads and processes; one that runs alone has all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fake_program import fake_program

from alignment.execution import warm_start
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


@pytest.mark.parametrize(
    ("compute", "together", "alone"),
    [
        ({"processes": 4, "device": "cpu"}, 2, 4),
        ({"processes": 1, "device": "cpu"}, 1, 1),
        ({"processes": 4, "device": "cpu", "sharding": "full"}, 4, 4),
        ({"processes": 4, "device": "cuda"}, 4, 4),  # each has a GPU of its own
    ],
)
def test_processes_of_every_stage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    compute: dict[str, Any],
    together: int,
    alone: int,
) -> None:
    gpu = tmp_path / "gpu"
    gpu.touch()
    monkeypatch.setattr(warm_start, "_GPUS", [gpu])
    program = fake_program(
        tmp_path / "workspace",
        versions=1,
        compute=compute,
        orchestration={"parallel": True},
    )
    runner = Runner(program)
    found = {node.key: runner.processes(node) for node in runner.plan}
    beside = ["reward_helpfulness", "reward_safety", "evaluate", "collect"]
    assert {found[f"rlhf-v1/{stage}"] for stage in beside} == {together}
    assert {found[f"rlhf-v1/{stage}"] for stage in ("sample", "select", "ppo")} == {alone}
