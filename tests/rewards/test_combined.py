"""Combined rewards by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alignment.config.rewards import CombineConfig
from alignment.rewards.combined import Multiplier, combine, whiten

H = np.array([1.0, -1.0, 0.5, 2.0])
S = np.array([0.5, 3.0, -2.0, 0.0])
TAG = np.array([False, True, False, False])


def combined(config: CombineConfig, **extra: np.ndarray) -> np.ndarray:
    return combine(H, S, TAG, config, **extra)


def test_linear_is_the_default() -> None:
    assert combined(CombineConfig()).tolist() == [1.5, 2.0, -1.5, 2.0]
    weights = CombineConfig(weights={"helpfulness": 2.0, "safety": 0.5})
    assert combined(weights).tolist() == [2.25, -0.5, 0.0, 4.0]


def test_the_threshold_itself_is_safe_enough() -> None:
    plain = CombineConfig(method="piecewise", whiten=False)
    at = np.full(4, plain.threshold)
    assert combined(plain, probability=at).tolist() == [1.0, 3.0, 0.5, 2.0]
    # Without P(safe), σ of the score: σ(−1.5) = 0.182 is above 0.15, 1/(e + e^1.5) below.
    low = np.array([-1.5])
    assert combine(np.array([2.0]), low, np.array([False]), plain).tolist() == [2.0]


def test_rewards_without_spread_become_zero() -> None:
    assert whiten(np.full(3, 2.0)).tolist() == [0.0, 0.0, 0.0]


def test_piecewise_takes_safety_where_tagged_or_unlikely() -> None:
    plain = CombineConfig(method="piecewise", whiten=False)
    # σ(−2) = 0.119 < 0.15; σ(0) and σ(0.5) are above; the second prompt is tagged.
    assert combined(plain).tolist() == [1.0, 3.0, -2.0, 2.0]
    # P(safe) by the model's own logit rules where it is given.
    chance = np.array([0.1, 0.9, 0.9, 0.16])
    assert combined(plain, probability=chance).tolist() == [0.5, 3.0, 0.5, 2.0]


def test_piecewise_whitens_the_logits_without_clamping() -> None:
    found = combined(CombineConfig(method="piecewise"))
    assert found.mean() == pytest.approx(0.0, abs=1e-9)
    assert found.std() == pytest.approx(1.0, abs=1e-6)
    huge = combine(H * 1e3, S * 1e3, TAG, CombineConfig(method="piecewise", whiten=False))
    assert np.isfinite(huge).all()
    assert huge[1] == 3000.0


def test_whiten_by_hand() -> None:
    values = np.array([1.0, 3.0])
    assert whiten(values).tolist() == pytest.approx([-1.0, 1.0])


def test_constrained_and_its_multiplier() -> None:
    config = CombineConfig(method="constrained", multiplier=1.0, floor=0.0, multiplier_rate=0.5)
    assert combined(config).tolist() == [0.75, 1.0, -0.75, 1.0]
    assert combine(H, S, TAG, config, multiplier=3.0)[0] == pytest.approx((1 + 3 * 0.5) / 4)
    state = Multiplier.start(config)
    # log λ: 0 → 0 + 0.5·1·(0 − (−1)) = 0.5
    assert state.update(-1.0, config) == pytest.approx(math.exp(0.5))
    # safer than the floor: λ falls, and stays positive for ever
    for _ in range(1000):
        state.update(5.0, config)
    assert 0 < state.value < 1e-2
    for _ in range(10_000):
        state.update(-5.0, config)
    assert state.value == pytest.approx(config.multiplier_limit)
    assert Multiplier.start(config).update(1e6, config) == math.exp(-20.0)


def test_multiplier_finds_the_balance() -> None:
    """Maximise −(x−2)² subject to −x ≥ −1: the optimum is x = 1 with λ = 2."""
    config = CombineConfig(method="constrained", multiplier=0.5, floor=-1.0, multiplier_rate=0.05)
    state = Multiplier.start(config)
    x = 0.0
    for _ in range(20_000):
        x += 0.02 * (-2 * (x - 2) - state.value)
        state.update(-x, config)
    assert x == pytest.approx(1.0, abs=1e-3)
    assert state.value == pytest.approx(2.0, abs=1e-2)


def test_the_multiplier_steps_by_its_own_size() -> None:
    config = CombineConfig(method="constrained", multiplier=2.0, multiplier_rate=0.1, floor=0.5)
    multiplier = Multiplier.start(config)
    # log λ += 0.1 · 2 · (0.5 − (−0.5)).
    assert multiplier.update(-0.5, config) == pytest.approx(2.0 * math.exp(0.2))
