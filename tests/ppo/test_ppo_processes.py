"""Two processes train as one: the same episodes and first losses, nearly equal weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_ppo_stage import context, digests, make_inputs

import alignment.stages.ppo as stage
from alignment.models.load import load_policy


def run(
    root: Path, inputs: dict[str, Path], names: str, changes: dict[str, Any], count: int
) -> None:
    described = json.dumps({key: str(path) for key, path in inputs.items()})
    arguments = [str(root), described, names, json.dumps(changes)]
    subprocess.run(
        [sys.executable, "-m", "alignment.execution.launcher", str(count), "ppo_child", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 2, "reward": {"whiten": True, "normalise": "running"}},
        {"algorithm": "rloo", "samples_per_prompt": 2, "entropy_coefficient": 0.01},
        {"lora": {"r": 4, "alpha": 8}, "critic_init": "policy", "ema": 0.5},
    ],
)
def test_two_processes_train_as_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    inputs = make_inputs(tmp_path / "inputs")
    changes = {"iterations": 3, "episodes": 9 - 9 % changes.get("samples_per_prompt", 1), **changes}
    one = context(tmp_path, inputs, "one", **changes)
    stage.run(one)
    run(tmp_path, inputs, "two,again,sharded,sharded-again", changes, 2)
    for name in ("two", "sharded"):
        two = context(tmp_path, inputs, name, **changes)
        rows = list(zip(one.series.rows(), two.series.rows(), strict=True))
        assert len(rows) == 4
        for left, right in rows:
            assert left.keys() == right.keys()
        for figure, value in rows[1][0].items():
            # Another order of sums: rounding only. Each process measures a share of its own rows.
            near = 0.1 if figure.endswith("updated_share") else 1e-5
            assert rows[1][1][figure] == pytest.approx(value, rel=1e-4, abs=near), (name, figure)
        left, right = (load_policy(ctx.out / "model") for ctx in (one, two))
        for (place, value), other in zip(left.named_parameters(), right.parameters(), strict=True):
            torch.testing.assert_close(value, other, atol=2e-4, rtol=1e-3, msg=f"{name} {place}")
    assert digests(tmp_path / "again" / "out") == digests(tmp_path / "two" / "out")
    assert digests(tmp_path / "sharded-again" / "out") == digests(tmp_path / "sharded" / "out")
