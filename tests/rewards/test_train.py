"""The training loop: schedule, learning, and resume to the same bits after kill -9."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from reward_helpers import random_elements, tiny

from alignment.config.rewards import RewardsConfig
from alignment.rewards.examples import Element, Pair
from alignment.rewards.train import train
from alignment.utils.metrics_log import Series


def preference_for_token(count: int, seed: int) -> list[Element]:
    """The answer that contains token 7 is better."""
    elements = []
    for element in random_elements(count, seed):
        left, right = ([t for t in ids if t != 7] for ids in element.sequences)
        left = [*left[:-1], 7, 1]
        elements.append(Element((tuple(left), tuple(right)), (Pair(0, 1),), (1.0, 0.0)))
    return elements


def test_it_learns() -> None:
    settings = RewardsConfig(
        batch=16, learning_rate=3e-3, max_tokens_per_micro_batch=2000, max_length=64
    )
    model = tiny()
    report = train(model, preference_for_token(320, 0), settings, pad=0, seed=1)
    assert report.steps == 20
    assert report.first_loss > 0.5
    assert report.last_loss < 0.25


def test_label_loss_puts_zero_between_safe_and_unsafe() -> None:
    settings = RewardsConfig(
        batch=16, learning_rate=3e-3, max_tokens_per_micro_batch=2000, max_length=64
    )
    model = tiny()
    train(model, preference_for_token(640, 0), settings, pad=0, seed=1, auxiliary_weight=1.0)
    with torch.no_grad():
        scores = np.array(
            [
                [model(torch.tensor([ids])).logits.item() for ids in element.sequences]
                for element in preference_for_token(50, 9)
            ]
        )
    assert (scores[:, 0] > 0).mean() > 0.95
    assert (scores[:, 1] < 0).mean() > 0.95


def test_gradient_checkpointing_changes_nothing() -> None:
    weights = []
    for recompute in (False, True):
        settings = RewardsConfig(
            batch=8, learning_rate=1e-3, max_length=64, gradient_checkpointing=recompute
        )
        model = tiny("gpt2")
        train(model, random_elements(16), settings, pad=0, seed=1)
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        assert not model.training
    torch.testing.assert_close(*weights, atol=1e-6, rtol=0)


HELPERS = Path(__file__).resolve().parents[1] / "helpers"

DRIVER = """
import os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import torch
from reward_helpers import random_elements, tiny
from alignment.config.rewards import RewardsConfig
from alignment.rewards.train import train
from alignment.utils.metrics_log import Series
from safetensors.torch import save_file

torch.set_num_threads(1)
settings = RewardsConfig(batch=4, learning_rate=1e-3, max_length=64, checkpoint_every=3)


def work(folder):
    folder.mkdir(exist_ok=True)
    model = tiny()
    train(model, random_elements(96), settings, pad=0, seed=5,
          checkpoints=folder / "checkpoints", series=Series(folder / "series.jsonl"),
          auxiliary_weight=0.5)
    save_file({n: p.detach() for n, p in model.named_parameters()}, folder / "final.safetensors")


def attempt(folder, kill_after=None):
    # A fork skips the seconds of importing torch that a new process would need each time.
    child = os.fork()
    if child == 0:
        work(folder)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == 0


root = Path(sys.argv[1])
began = time.monotonic()
assert attempt(root / "whole")
longest = time.monotonic() - began
chance = random.Random(3)
kills = 0
for _ in range(8):
    if attempt(root / "killed", chance.uniform(0.02, 0.3 * longest)):
        break
    kills += 1
assert attempt(root / "killed")
assert kills >= 3, kills
"""


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_killed_and_resumed_is_byte_identical(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path), str(HELPERS)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
        check=True,
        timeout=300,
    )
    for name in ("final.safetensors", "series.jsonl"):
        assert digest(tmp_path / "whole" / name) == digest(tmp_path / "killed" / name), name
    assert len(Series(tmp_path / "killed" / "series.jsonl").rows()) == 24
