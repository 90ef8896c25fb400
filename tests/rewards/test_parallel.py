"""Two processes take the steps of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from parallel_child import work
from safetensors.torch import load_file

from alignment.utils.metrics_log import Series


def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    subprocess.run(
        [
            sys.executable,
            "-m",
            "alignment.execution.launcher",
            "2",
            "parallel_child",
            str(tmp_path / "two"),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=300,
    )
    work(tmp_path / "one")
    one, two = (Series(tmp_path / name / "series.jsonl").rows() for name in ("one", "two"))
    assert len(one) == len(two) == 5
    # The first update sees the same weights: one float32 rounding apart. Later ones drift with it.
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], abs=1e-6)
    assert two[0]["gradient_norm"] == pytest.approx(one[0]["gradient_norm"], rel=1e-5)
    for ours, theirs in zip(one, two, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], abs=1e-5)
        assert theirs["accuracy"] == pytest.approx(ours["accuracy"], abs=1e-6)
    weights = load_file(tmp_path / "one" / "final-0.safetensors")
    parts = [load_file(tmp_path / "two" / f"final-{rank}.safetensors") for rank in (0, 1)]
    for name, tensor in weights.items():
        assert torch.equal(parts[0][name], parts[1][name])
        torch.testing.assert_close(parts[0][name], tensor, atol=1e-5, rtol=0)
