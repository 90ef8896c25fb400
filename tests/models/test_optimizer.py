"""One optimiser and one learning-rate curve for all trainings."""

from __future__ import annotations

import pytest
import torch

from alignment.config.optimizer import OptimizerConfig
from alignment.models.optimizer import make_optimizer, make_schedule, warmup_steps


def adamw(module: torch.nn.Module) -> torch.optim.AdamW:
    return make_optimizer(module.parameters(), 0.5, OptimizerConfig())


def curve(
    steps: int, warmup: int, min_lr_ratio: float, resume_at: int | None = None
) -> list[float]:
    """Share of the highest rate at each step; `resume_at` goes on from a saved state there."""
    module = torch.nn.Linear(2, 2)
    optimizer = adamw(module)
    schedule = make_schedule(optimizer, steps=steps, warmup=warmup, min_lr_ratio=min_lr_ratio)
    rates = []
    for step in range(steps):
        if step == resume_at:
            saved = optimizer.state_dict(), schedule.state_dict()
            optimizer = adamw(module)
            schedule = make_schedule(
                optimizer, steps=steps, warmup=warmup, min_lr_ratio=min_lr_ratio
            )
            optimizer.load_state_dict(saved[0])
            schedule.load_state_dict(saved[1])
        rates.append(optimizer.param_groups[0]["lr"] / 0.5)
        optimizer.step()
        schedule.step()
    return [*rates, optimizer.param_groups[0]["lr"] / 0.5]


def test_the_learning_rate_by_hand() -> None:
    rates = curve(10, 2, 0.1)
    assert rates[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert rates[6] == pytest.approx(0.55)  # half way down
    assert rates[9] > 0.1
    assert rates[10] == pytest.approx(0.1)  # the step after the last
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_a_run_of_one_step_has_the_whole_rate() -> None:
    assert curve(1, 0, 0.0)[0] == 1.0


def test_without_a_fall_the_rate_stays() -> None:
    assert curve(5, 2, 1.0) == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0, 1.0, 1.0])


def test_a_saved_schedule_goes_on() -> None:
    assert curve(10, 2, 0.1, resume_at=1) == curve(10, 2, 0.1)
    assert curve(10, 2, 0.1, resume_at=6) == curve(10, 2, 0.1)


def test_steps_of_warm_up() -> None:
    assert [warmup_steps(n, 0.03) for n in (0, 1, 2, 100)] == [0, 0, 1, 3]
    # At least five steps, but in a short run at most half of it.
    assert [warmup_steps(n, 0.03, 5) for n in (0, 1, 2, 50, 200)] == [0, 0, 1, 5, 6]
    assert warmup_steps(10, 0.8, 5) == 8


def test_matrices_alone_are_decayed_and_what_is_frozen_is_left_out() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    module[1].requires_grad_(False)
    optimizer = adamw(module)
    groups = [(group["weight_decay"], group["params"]) for group in optimizer.param_groups]
    assert groups == [(0.1, [module[0].weight]), (0.0, [module[0].bias])]
    assert optimizer.defaults["betas"] == (0.9, 0.95)
    assert optimizer.defaults["eps"] == 1e-5
