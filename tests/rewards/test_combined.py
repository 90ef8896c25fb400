"""Combined rewards by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alignment.config.rewards import CombineConfig
from alignment.rewards.combined import Multiplier, combine, fit_threshold, whiten

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


def test_threshold_by_hand() -> None:
    chance = np.array([0.05, 0.1, 0.2, 0.3, 0.6, 0.9])
    unsafe = np.array([True, True, False, True, False, False])
    strict = fit_threshold(chance, unsafe, precision=0.9)
    assert (strict.precision, strict.recall) == pytest.approx((1.0, 2 / 3))
    assert 0.1 < strict.threshold < 0.2
    wide = fit_threshold(chance, unsafe, recall=1.0)
    assert (wide.precision, wide.recall) == pytest.approx((0.75, 1.0))
    assert 0.3 < wide.threshold < 0.6


def test_threshold_against_brute_force() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        # Rounded, so that many answers share a probability.
        chance = np.round(generator.random(40), 1)
        unsafe = generator.random(40) < 0.4 + 0.3 * (chance < 0.5)
        found = fit_threshold(chance, unsafe, recall=0.6)
        best = 0.0
        for cut in np.arange(0.05, 1.1, 0.1):
            said = chance < cut
            if said.any() and (said & unsafe).sum() / unsafe.sum() >= 0.6:
                best = max(best, (said & unsafe).sum() / said.sum())
        assert found.precision == pytest.approx(best)
        said = chance < found.threshold
        assert (said & unsafe).sum() / said.sum() == pytest.approx(found.precision)


def test_the_multiplier_steps_by_its_own_size() -> None:
    config = CombineConfig(method="constrained", multiplier=2.0, multiplier_rate=0.1, floor=0.5)
    multiplier = Multiplier.start(config)
    # log λ += 0.1 · 2 · (0.5 − (−0.5)).
    assert multiplier.update(-0.5, config) == pytest.approx(2.0 * math.exp(0.2))


def test_thresholds_lie_halfway_to_the_next_value() -> None:
    chance = np.array([0.9, 0.2, 0.5, 0.3])
    unsafe = np.array([False, True, True, False])
    # In order: 0.2 unsafe, 0.3 safe, 0.5 unsafe, 0.9 safe; precisions 1, ½, ⅔, ½; recalls ½ ½ 1 1.
    sure = fit_threshold(chance, unsafe, precision=1.0)  # reached exactly
    assert (sure.threshold, sure.precision, sure.recall) == pytest.approx((0.25, 1.0, 0.5))
    wide = fit_threshold(chance, unsafe, recall=1.0)
    assert (wide.threshold, wide.precision, wide.recall) == pytest.approx((0.7, 2 / 3, 1.0))
    # Behind the last value lies 1.
    last = fit_threshold(np.array([0.2, 0.6]), np.array([False, True]), recall=1.0)
    assert (last.threshold, last.precision, last.recall) == pytest.approx((0.8, 0.5, 1.0))
    all_safe_behind = fit_threshold(np.array([0.2, 0.6]), np.array([True, False]), recall=1.0)
    assert all_safe_behind.threshold == pytest.approx(0.4)


def test_threshold_refuses_the_impossible() -> None:
    chance = np.array([0.1, 0.9])
    with pytest.raises(ValueError, match="no unsafe"):
        fit_threshold(chance, np.array([False, False]), recall=0.5)
    with pytest.raises(ValueError, match="no threshold has precision"):
        fit_threshold(chance, np.array([False, True]), precision=0.9)
    with pytest.raises(ValueError, match="either"):
        fit_threshold(chance, np.array([False, True]))
