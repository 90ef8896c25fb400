"""Runs that break: resume to the same bits, and no step on what is not finite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from everything import build, evens, same, weights

from alignment.errors import StageError
from alignment.training.ppo.scoring import PlainReward
from alignment.training.ppo.trainer import PPOTrainer
from alignment.utils import checkpoint
from alignment.utils.metrics_log import Series


class Broken(RuntimeError):
    """Stands for a killed process."""


def break_after(trainer: PPOTrainer, iteration: int) -> None:
    original = trainer.iterate

    def iterate(number: int) -> dict[str, float]:
        if number == iteration:
            raise Broken
        return original(number)

    trainer.iterate = iterate  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "changes", [{}, {"algorithm": "rloo", "samples_per_prompt": 2, "critic_warmup_iterations": 0}]
)
def test_a_broken_run_goes_on_to_the_same_bits(
    tmp_path: Path, changes: dict[str, Any], way: str
) -> None:
    whole = build(tmp_path / "whole", **changes)
    outcome = whole.train()
    for point, every in ((1, 1), (3, 2), (5, 1)):
        place = tmp_path / f"broken{point}"
        broken = build(place, checkpoint_every=every, **changes)
        break_after(broken, point)
        with pytest.raises(Broken):
            broken.train()
        resumed = build(place, checkpoint_every=every, **changes)
        torch.manual_seed(999)  # a new process starts with other random states
        again = resumed.train()
        assert same(weights(whole), weights(resumed))
        assert again.history == outcome.history
        assert again.kept == outcome.kept
        series = (tmp_path / "whole" / "series.jsonl").read_bytes()
        assert (place / "series.jsonl").read_bytes() == series


def test_curves_lost_with_the_output_are_written_anew(tmp_path: Path) -> None:
    build(tmp_path).train()
    series = (tmp_path / "series.jsonl").read_bytes()
    (tmp_path / "series.jsonl").unlink()
    build(tmp_path).train()
    assert (tmp_path / "series.jsonl").read_bytes() == series


def test_scores_that_are_not_finite_stop_the_run_and_keep_the_checkpoint(tmp_path: Path) -> None:
    calls = []

    def poisoned(episodes: Any) -> np.ndarray:
        calls.append(1)
        return np.full(len(episodes), np.nan) if len(calls) > 2 else evens(episodes)

    trainer = build(tmp_path, stop={"look_every": 0})
    trainer.reward = PlainReward(poisoned)
    with pytest.raises(StageError, match="not finite"):
        trainer.train()
    assert checkpoint.latest(tmp_path / "checkpoints") == 2


def test_a_gradient_that_is_not_finite_stops_before_the_step() -> None:
    trainer = build(None, critic_warmup_iterations=0)
    trainer.iterate(0)
    assert trainer.roles.critic is not None
    with torch.no_grad():
        trainer.roles.critic.head.bias.fill_(float("nan"))
    with pytest.raises(StageError, match="not finite"):
        trainer.iterate(1)
    assert all(torch.isfinite(p).all() for p in trainer.roles.policy.model.parameters())


def test_an_exploding_kl_ends_in_an_error_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    trainer = build(
        tmp_path,
        iterations=50,
        learning_rate=0.3,
        warmup_iterations=10,
        stop={"look_every": 0, "kl_limit": 2.0},
        kl={"coefficient": 0.0},
        ptx={"coefficient": 0.0},
    )
    with pytest.raises(StageError, match="beyond the limit of 2"):
        trainer.train()
    kept = [row["kl/reference"] for row in Series(tmp_path / "series.jsonl").rows()]
    assert kept
    assert max(kept) <= 2.0
    assert checkpoint.latest(tmp_path / "checkpoints") == len(kept)


def test_in_bfloat16_resuming_gives_the_same_bits(tmp_path: Path) -> None:
    ends = {}
    for name, kinds in (("whole", [4]), ("parts", [2, 4])):
        for iterations in kinds:
            trainer = build(tmp_path / name, "bfloat16", iterations=iterations, checkpoint_every=1)
            trainer.train()
        trainer.roles.policy.settle(trainer.roles.policy.model)
        ends[name] = weights(trainer)
    assert same(ends["whole"], ends["parts"])
    assert all(value.dtype == torch.float32 for value in ends["whole"].values())
