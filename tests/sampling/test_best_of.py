"""Estimators against enumeration, and figures worked out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from alignment.sampling.best_of import (
    curves,
    distinct_rate,
    expected_best,
    expected_median,
    kl_bound,
    kl_estimate,
    order_weights,
)


@pytest.mark.parametrize("n", range(1, 8))
def test_expected_best_and_median_equal_enumeration(n: int) -> None:
    rewards = np.random.default_rng(0).normal(size=(3, 7))
    rewards[1, 2] = rewards[1, 5]
    subsets = list(itertools.combinations(range(7), n))
    best = [np.mean([max(row[list(s)]) for s in subsets]) for row in rewards]
    median = [np.mean([np.median(row[list(s)]) for s in subsets]) for row in rewards]
    assert np.allclose(expected_best(rewards, n), best, atol=1e-12)
    assert np.allclose(expected_median(rewards, n), median, atol=1e-12)


def test_by_hand() -> None:
    # Rewards 1, 2, 4 in pairs: maxima 2, 4, 4.
    assert expected_best(np.array([[4.0, 1.0, 2.0]]), 2)[0] == pytest.approx(10 / 3)
    assert np.allclose(order_weights(3, 2, 2), [0, 1 / 3, 2 / 3])
    with pytest.raises(ValueError, match="1 ≤ m ≤ n"):
        order_weights(3, 4, 1)


def test_weights_are_probabilities_for_large_pools() -> None:
    for n, m in ((1, 1), (64, 64), (512, 200), (1024, 1024)):
        assert order_weights(1024, n, m).sum() == pytest.approx(1.0, abs=1e-12)


def test_curves() -> None:
    rewards = np.random.default_rng(1).normal(size=(200, 16))
    rows = curves(rewards)
    assert [row["n"] for row in rows] == list(range(1, 17))
    assert rows[0]["best"] == pytest.approx(rewards.mean())
    assert rows[-1]["best"] == pytest.approx(rewards.max(axis=1).mean())
    assert rows[-1]["median"] == pytest.approx(np.median(rewards, axis=1).mean())
    assert all(a["best"] < b["best"] for a, b in itertools.pairwise(rows))
    # The expected largest of 16 standard normal draws is 1.766.
    assert rows[-1]["best"] == pytest.approx(1.766, abs=4 * rows[-1]["best_error"])


def test_kl_bound_is_the_published_one() -> None:
    published = {2: 0.193, 4: 0.636, 8: 1.204, 16: 1.835, 64: 3.175, 100: 3.615, 1024: 5.932}
    for n, value in published.items():
        assert kl_bound(n) == pytest.approx(value, abs=5e-4)
    assert kl_bound(1) == 0


@pytest.mark.parametrize(("answers", "n"), [(4, 16), (4096, 16)])
def test_kl_estimate_against_the_exact_divergence(answers: int, n: int) -> None:
    """Best of n of a uniform policy over M ranked answers has P(i) = (i/M)ⁿ − ((i−1)/M)ⁿ."""
    ranks = np.arange(1, answers + 1)
    chance = (ranks / answers) ** n - ((ranks - 1) / answers) ** n
    positive = chance[chance > 0]
    exact = float((positive * np.log(positive * answers)).sum())
    estimate = float(kl_estimate(n, np.array([math.log(1 / answers)]))[0])
    assert estimate == pytest.approx(exact, abs=0.01)
    assert estimate <= kl_bound(n) + 1e-9


def test_kl_estimate_of_long_answers_is_the_bound() -> None:
    assert kl_estimate(16, np.array([-500.0, -2000.0])) == pytest.approx([kl_bound(16)] * 2)
    assert kl_estimate(16, np.array([0.0]))[0] == pytest.approx(0.0, abs=1e-6)


def test_distinct_rate() -> None:
    assert distinct_rate([["a", "a", "b", "c"], ["a", "a", "a", "a"]]) == pytest.approx(0.5)
