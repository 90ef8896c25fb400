"""Intervals against numbers worked out by hand and against repeated sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from alignment.utils.statistics import auc, bootstrap_mean, correlation, sigmoid, wilson


def test_bootstrap_is_the_mean_and_repeats() -> None:
    values = np.array([0.0, 1.0, 1.0, 1.0])
    first = bootstrap_mean(values, seed=3)
    assert first.mean == 0.75
    assert first.low <= 0.75 <= first.high
    assert first == bootstrap_mean(values, seed=3)
    assert math.isnan(bootstrap_mean(np.array([]), seed=3).mean)


def test_bootstrap_width_is_the_normal_one_for_many_values() -> None:
    values = np.random.default_rng(0).normal(size=4000)
    interval = bootstrap_mean(values, seed=1)
    expected = 1.96 * values.std() / math.sqrt(len(values))
    assert (interval.high - interval.low) / 2 == pytest.approx(expected, rel=0.1)


def test_wilson_by_hand() -> None:
    # 8 of 10: centre (0.8 + 3.8415/20)/1.38415 = 0.71674, half-width 0.22658.
    interval = wilson(8, 10)
    assert interval == pytest.approx((0.8, 0.49016, 0.94332), abs=1e-4)
    assert wilson(0, 10).low == pytest.approx(0.0, abs=1e-12)
    assert wilson(10, 10).high == pytest.approx(1.0)
    assert math.isnan(wilson(0, 0).mean)


def test_correlation() -> None:
    assert correlation(np.array([1, 2, 3]), np.array([2, 4, 6])) == pytest.approx(1.0)
    assert math.isnan(correlation(np.array([1, 1]), np.array([0, 1])))
    assert math.isnan(correlation(np.array([0, 1]), np.array([1, 1])))
    assert math.isnan(correlation(np.array([1]), np.array([2])))
    assert correlation(np.array([0, 1]), np.array([1, 0])) == pytest.approx(-1.0)
    # Deviations −1 0 1 and −1 1 0: 1/√(2·2).
    assert correlation(np.array([0, 1, 2]), np.array([0, 2, 1])) == pytest.approx(0.5)
    assert correlation(np.array([0, 1, 1]), np.array([0, 1, 1])) == pytest.approx(1.0)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60),
    st.integers(0, 2**63 - 1),
    st.sampled_from([0.8, 0.95]),
)
def test_bootstrap_is_scipys(values: list[float], seed: int, level: float) -> None:
    ours = bootstrap_mean(np.array(values), seed=seed, samples=200, level=level)
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=200,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    scale = np.abs(values).max()
    assert ours[1:] == pytest.approx((theirs.low, theirs.high), rel=1e-12, abs=1e-12 * scale)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 500), st.data(), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_is_scipys(trials: int, data: st.DataObject, level: float) -> None:
    won = data.draw(st.integers(0, trials))
    theirs = stats.binomtest(won, trials).proportion_ci(level, "wilson")
    assert wilson(won, trials, level=level)[1:] == pytest.approx(
        (theirs.low, theirs.high), abs=1e-12
    )
    half = won / 2  # ties are half a win
    assert wilson(half, trials, level=level).mean == half / trials


@given(st.lists(st.floats(-1e5, 1e5), min_size=1))
def test_sigmoid_is_scipys(values: list[float]) -> None:
    assert sigmoid(np.array(values)) == pytest.approx(special.expit(values), rel=1e-9, abs=0.0)


def test_auc_by_hand_and_as_mann_whitney() -> None:
    # Of four pairs three are in order and one is a tie.
    assert auc(np.array([0.9, 0.4]), np.array([0.1, 0.4])).mean == 0.875
    assert auc(np.array([0.9]), np.array([0.1, 0.4])) == (1.0, 0.0, 1.0)
    assert math.isnan(auc(np.array([]), np.array([0.1])).mean)
    generator = np.random.default_rng(4)
    positive, negative = generator.integers(0, 9, 40) / 9, generator.integers(0, 7, 25) / 9
    u = stats.mannwhitneyu(positive, negative).statistic
    assert auc(positive, negative).mean == pytest.approx(u / (40 * 25))


def test_auc_interval_covers_the_truth() -> None:
    """Normal scores one deviation apart: AUC = Φ(1/√2)."""
    truth = float(stats.norm.cdf(1 / math.sqrt(2)))
    generator = np.random.default_rng(9)
    hits = 0
    for _ in range(1000):
        found = auc(generator.normal(1, 1, 60), generator.normal(0, 1, 90))
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / 1000 <= 0.97
