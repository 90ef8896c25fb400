"""Two processes calibrate and measure a reward model as one does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import run
from reward_stage_child import SETTINGS, work
from test_reward_stage import digests, inputs

from alignment.utils.files import read_json

__all__ = ["inputs"]


def numbers(value: Any) -> list[float]:
    """All numbers in a JSON value, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [] if value is None or isinstance(value, str) else [float(value)]


def test_two_processes_measure_as_one(tmp_path: Path, inputs: dict[str, Path]) -> None:
    """Both have the weights of one training, and so the same outputs to the byte; a model that is
    split over the processes rounds otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for name in SETTINGS:
        work(tmp_path / "one", inputs, name)
        shutil.copytree(tmp_path / "one" / name / "scratch", tmp_path / "two" / name / "scratch")
    torch.set_num_threads(before)
    given = json.dumps({name: str(path) for name, path in inputs.items()})
    run(2, "reward_stage_child", tmp_path / "two", given, ",".join(SETTINGS))
    for name in ("full", "lora"):
        one, two = (tmp_path / place / name / "out" for place in ("one", "two"))
        assert digests(two) == digests(one)
    one, two = (tmp_path / place / "split" / "out" for place in ("one", "two"))
    for file in ("evaluation.json", "model/reward.json"):
        assert numbers(read_json(two / file)) == pytest.approx(
            numbers(read_json(one / file)), abs=1e-3
        )
