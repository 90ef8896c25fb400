"""Accuracy against data: the law that is fitted, and its forecast."""

from __future__ import annotations

import numpy as np
import pytest
from reward_helpers import scored

from alignment.rewards.learning_curve import Law, fit, growth


def test_fit_recovers_a_planted_law() -> None:
    # error = 0.5 · (n / 100)^(−0.5): halved by four times the data.
    pairs = np.array([100.0, 400.0, 1600.0])
    law = fit(pairs, 1 - 0.5 * (pairs / 100) ** -0.5)
    assert law.b == pytest.approx(-0.5)
    assert law.accuracy(6400) == pytest.approx(1 - 0.0625)
    assert law.pairs_for(1 - 0.0625) == pytest.approx(6400)


def test_a_law_that_does_not_grow_promises_nothing() -> None:
    assert fit(np.array([10.0, 20.0]), np.array([0.6, 0.55])).pairs_for(0.7) == float("inf")
    assert Law(np.log(0.5), -0.1).pairs_for(1.0) == float("inf")


def test_growth_by_hand() -> None:
    place = np.arange(400)
    # 50 %, 60 %, 68 % right: errors 0.5, 0.4, 0.32 at 100, 200, 400 pairs, a factor 0.8 a doubling.
    models = {
        f"rlhf-v{n + 1}": (pairs, scored(place % 100 < share))
        for n, (pairs, share) in enumerate(((100, 50), (200, 60), (400, 68)))
    }
    found = growth(models, seed=1, samples=200)
    assert [point["all"]["accuracy"] for point in found["points"]] == [0.5, 0.6, 0.68]
    assert found["points"][0]["significantly"]["count"] == 200
    assert found["law"]["b"] == pytest.approx(np.log2(0.8))
    doubled = next(row for row in found["forecast"] if row["times"] == 2.0)
    assert doubled["pairs"] == 800
    assert doubled["accuracy"] == pytest.approx(1 - 0.32 * 0.8)
    assert doubled["low"] < doubled["accuracy"] < doubled["high"]
    # From 0.68 to 0.70: error 0.30 at 400 · (0.30 / 0.32)^(1/b).
    price = next(row for row in found["price"] if row["points"] == 0.02)
    assert price["more_pairs"] == pytest.approx(400 * ((0.30 / 0.32) ** (1 / np.log2(0.8)) - 1))
    assert price["low"] < price["more_pairs"] < price["high"]


def test_one_model_has_no_law_yet() -> None:
    found = growth({"rlhf-v1": (100, scored(np.arange(10) < 6))}, seed=1)
    assert "law" not in found
    assert found["points"][0]["all"]["accuracy"] == 0.6
