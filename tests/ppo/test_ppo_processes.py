"""Two processes train as one: the same episodes and first losses, nearly equal weights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from fake_vllm import installed_in
from live_child import served
from live_fake import InThisProcess
from test_ppo_stage import context, digests, make_inputs, other_policy

import alignment.stages.ppo as stage
from alignment.models.load import load_policy
from alignment.preferences.stop_set import STOP_TEXTS

LOOKS = {"look_every": 2, "heldout_prompts": 4, "keep": "last"}
LIVE: dict[str, Any] = {
    "iterations": 3,
    "episodes": 9,
    "learning_rate": 1e-2,
    "stop": LOOKS,
    "inference": {"engine": "vllm"},
}
ADAPTERS = {"lora": {"r": 4, "alpha": 8}, "critic_init": "policy"}


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
        {"lora": {"r": 4, "alpha": 8}, "critic_init": "policy", "ema": 0.5, "reference": "sft"},
    ],
)
def test_two_processes_train_as_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    inputs = make_inputs(tmp_path / "inputs")
    text = '{"text": "one two three good"}\n'  # a single one: a process has none
    (inputs["prepare"] / STOP_TEXTS).write_text(text)
    if "reference" in changes:
        start = inputs["policy"] / "model"
        inputs["reference"] = other_policy(tmp_path / "sft", start, adapter=True)
    episodes = 9 - 9 % changes.get("samples_per_prompt", 1)
    changes = {"iterations": 3, "episodes": episodes, "stop": LOOKS, **changes}
    one = context(tmp_path, inputs, "one", **changes)
    stage.run(one)
    run(tmp_path, inputs, "two,again,sharded,sharded-again", changes, 2)
    for name in ("two", "sharded"):
        two = context(tmp_path, inputs, name, **changes)
        rows = list(zip(one.series.rows(), two.series.rows(), strict=True))
        assert len(rows) == 4
        losses = [[row["look/text_loss"] for row in side[::2]] for side in zip(*rows, strict=True)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)
        for left, right in rows:
            assert left.keys() == right.keys()
        for figure, value in rows[1][0].items():
            # Another order of sums: rounding only. Each process measures a share of its own rows.
            near = 0.1 if figure.endswith("updated_share") else 1e-5
            assert rows[1][1][figure] == pytest.approx(value, rel=1e-4, abs=near), (name, figure)
        left, right = (load_policy(ctx.out / "model") for ctx in (one, two))
        start = load_policy(inputs["policy"] / "model").parameters()
        assert any(not torch.equal(*pair) for pair in zip(start, right.parameters(), strict=True))
        for (place, value), other in zip(left.named_parameters(), right.parameters(), strict=True):
            torch.testing.assert_close(value, other, atol=2e-4, rtol=1e-3, msg=f"{name} {place}")
    assert digests(tmp_path / "again" / "out") == digests(tmp_path / "two" / "out")
    assert digests(tmp_path / "sharded-again" / "out") == digests(tmp_path / "sharded" / "out")


def test_a_server_draws_for_several_processes(tmp_path: Path) -> None:
    inputs = make_inputs(tmp_path / "inputs")
    start = load_policy(inputs["policy"] / "model")
    start.config.tie_word_embeddings = True
    start.tie_weights()
    start.save_pretrained(inputs["policy"] / "model")
    home = tmp_path / "vllm"
    home.mkdir()
    (home / "hang").touch()
    hanging = {"engine": "vllm", "vllm": {"python": str(installed_in(home))}}
    cases = {
        "two": LIVE,
        "sharded": LIVE,
        "machines": LIVE,
        "sharded-adapters": LIVE | ADAPTERS,
        "hanging": LIVE | {"inference": hanging},
    }
    described = json.dumps({key: str(path) for key, path in inputs.items()})
    arguments = [str(tmp_path), described, json.dumps(cases)]
    both = subprocess.Popen(
        [sys.executable, "-m", "alignment.execution.launcher", "2", "live_child", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with served(InThisProcess):
        for name, changes in (("one", LIVE), ("one-adapter", LIVE | ADAPTERS)):
            stage.run(context(tmp_path, inputs, name, **changes))
    while not (home / "pids").exists() and both.poll() is None:
        time.sleep(0.1)
    assert both.poll() is None, "it waits for the server's answers for ever"
    servers = [int(word) for word in (home / "pids").read_text().split()]
    assert all(map(psutil.pid_exists, servers))
    both.send_signal(signal.SIGKILL)
    both.wait()
    for name in ("two", "sharded", "machines", "sharded-adapters"):
        alone = "one-adapter" if name == "sharded-adapters" else "one"
        left, right = (context(tmp_path, inputs, each, **cases[name]) for each in (alone, name))
        rows = list(zip(left.series.rows(), right.series.rows(), strict=True))
        assert len(rows) == 4
        for before, after in rows[1:]:
            # With older weights it would be a hundred times as much, and refused.
            assert max(row["engine/mismatch_largest"] for row in (before, after)) < 1e-5
            assert after["score/mean"] == pytest.approx(before["score/mean"], abs=1e-5)
        ends = [load_policy(ctx.out / "model") for ctx in (left, right)]
        for one, two in zip(*(end.parameters() for end in ends), strict=True):
            torch.testing.assert_close(one, two, atol=2e-4, rtol=1e-3, msg=name)
        moved = zip(start.state_dict().values(), ends[1].state_dict().values(), strict=True)
        assert max(float((before - after).abs().max()) for before, after in moved) > 1e-2
    until = time.monotonic() + 20
    while any(map(psutil.pid_exists, servers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, servers))
