"""Intervals against numbers worked out by hand and against repeated sampling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from alignment.utils.statistics import (
    auc,
    bootstrap,
    bootstrap_mean,
    clustered_rate,
    correlation,
    difference,
    expanded,
    paired_difference,
    sigmoid,
    student,
    wilson,
)


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


@pytest.mark.parametrize("count", [4, 10, 20])
def test_bootstrap_of_few_values_covers_the_truth(count: int) -> None:
    """Plain percentiles hold the mean of 10 values in 89 % of cases, of 4 in 77 %."""
    generator = np.random.default_rng(count)
    hits = 0
    for trial in range(600):
        found = bootstrap_mean(generator.normal(size=count), seed=trial, samples=400)
        hits += found.low <= 0.0 <= found.high
    assert 0.91 <= hits / 600 <= 0.98


def test_one_value_has_no_interval() -> None:
    found = bootstrap_mean(np.array([0.5]), seed=0)
    assert found.mean == 0.5
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_wilson_by_hand() -> None:
    # 8 of 10: centre (0.8 + 3.8415/20)/1.38415 = 0.71674, half-width 0.22658.
    interval = wilson(8, 10)
    assert interval == pytest.approx((0.8, 0.49016, 0.94332), abs=1e-4)
    assert wilson(0, 10).low == pytest.approx(0.0, abs=1e-12)
    assert wilson(10, 10).high == pytest.approx(1.0)
    assert math.isnan(wilson(0, 0).mean)


def test_difference_as_published() -> None:
    """Examples of Newcombe 1998, Table II, by method 10."""
    for (a, m), (b, n), low, high in (
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((10, 10), (0, 10), 0.6075, 1.0000),
    ):
        found = difference(wilson(a, m), wilson(b, n))
        assert found.mean == pytest.approx(a / m - b / n)
        assert found[1:] == pytest.approx((low, high), abs=6e-5)


def test_difference_of_rates_on_the_same_items_by_hand() -> None:
    """7 of 80 before and 14 after, among them the 7: a correlation of (7·80 − 7·14)/√(7·73·14·66)
    = 0.6725. Wilson's ends are 10.72, 27.26 and 4.30, 16.98 %."""
    after, before = (np.arange(80) < count for count in (14, 7))
    found = paired_difference(after, before)
    low = 0.0875 - math.sqrt(0.0678**2 + 0.0823**2 - 2 * 0.6725 * 0.0678 * 0.0823)
    high = 0.0875 + math.sqrt(0.0976**2 + 0.0445**2 - 2 * 0.6725 * 0.0976 * 0.0445)
    assert found == pytest.approx((0.0875, low, high), abs=2e-4)
    narrow = (wilson(14, 80, level=0.8), wilson(7, 80, level=0.8))
    assert paired_difference(after, before, level=0.8) == pytest.approx(
        difference(*narrow, 0.6725), abs=1e-5
    )
    # The same answers: a correlation of 1, so that what Wilson's two ends differ by is left.
    assert paired_difference(before, before) == pytest.approx((0, -0.0378, 0.0378), abs=1e-4)
    # The same items in opposite order: a correlation below 0 makes it wider than independence.
    apart = paired_difference(after, before[::-1])
    assert apart.low < difference(wilson(14, 80), wilson(7, 80)).low
    # Where nothing is refused before, nothing varies together.
    none = np.zeros(80)
    assert paired_difference(after, none) == pytest.approx(
        difference(wilson(14, 80), wilson(0, 80))
    )
    # Clusters of two copies tell no more than one item each.
    twice = paired_difference(after.repeat(2), before.repeat(2), np.arange(80).repeat(2))
    assert twice == pytest.approx(found, abs=0.005)
    # Item by item both are opposite in the first two clusters, and yet sum to the same in all.
    clusters = np.repeat((0, 1, 2), 2)
    mixed = [
        paired_difference(np.array(one), np.array([0, 1, 1, 0, 1, 1]), clusters)
        for one in ([1, 0, 0, 1, 1, 1], [0, 1, 1, 0, 1, 1])
    ]
    assert mixed[0] == mixed[1]


def test_levels_are_widened_for_few_clusters() -> None:
    """Over 9 clusters Student's 2.306 · √(9/8) = 2.4459 deviations: 98.55 % of a normal."""
    assert expanded(0.95, 9) == pytest.approx(0.98555, abs=1e-4)


def test_an_area_has_its_interval_within_0_and_1() -> None:
    rng = np.random.default_rng(0)
    for shift in (-1.5, 1.5):
        for _ in range(20):
            up, down = rng.normal(shift, 1, 12), rng.normal(0, 1, 12)
            found = auc(up, down, clusters=(np.arange(12) // 4, np.arange(12) // 4))
            assert 0 <= found.low <= found.mean <= found.high <= 1


def test_correlation() -> None:
    assert correlation(np.array([1, 2, 3]), np.array([2, 4, 6])) == pytest.approx(1.0)
    assert math.isnan(correlation(np.array([1, 1]), np.array([0, 1])))
    assert math.isnan(correlation(np.array([0, 1]), np.array([1, 1])))
    assert math.isnan(correlation(np.array([1]), np.array([2])))
    assert correlation(np.array([0, 1]), np.array([1, 0])) == pytest.approx(-1.0)
    # Deviations −1 0 1 and −1 1 0: 1/√(2·2).
    assert correlation(np.array([0, 1, 2]), np.array([0, 2, 1])) == pytest.approx(0.5)
    assert correlation(np.array([0, 1, 1]), np.array([0, 1, 1])) == pytest.approx(1.0)


@settings(max_examples=30)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60),
    st.integers(0, 2**63 - 1),
    st.sampled_from([0.8, 0.95]),
)
def test_bootstrap_is_scipys(values: list[float], seed: int, level: float) -> None:
    ours = bootstrap(np.array(values), np.mean, seed=seed, samples=200, level=level)
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


@settings(max_examples=50)
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
    def area(positive: list[float], negative: list[float]) -> Any:
        places = np.arange(len(positive)), len(positive) + np.arange(len(negative))
        return auc(np.array(positive), np.array(negative), clusters=places)

    # Of four pairs three are in order and one is a tie.
    assert area([0.9, 0.4], [0.1, 0.4]).mean == 0.875
    one = np.zeros(1), np.zeros(2)
    assert auc(np.array([0.9]), np.array([0.1, 0.4]), clusters=one) == (1.0, 0.0, 1.0)
    assert math.isnan(area([], [0.1]).mean)
    generator = np.random.default_rng(4)
    positive, negative = generator.integers(0, 9, 40) / 9, generator.integers(0, 7, 25) / 9
    u = stats.mannwhitneyu(positive, negative).statistic
    assert area(positive.tolist(), negative.tolist()).mean == pytest.approx(u / (40 * 25))


def test_a_clustered_rate_of_two_clusters_by_hand() -> None:
    """Rates of 0.2 and 0.6 in ten values each: the variance of the mean is 2/1·2·(0.2/2)² = 0.04,
    so 0.24/0.04 = 6 trials, of which Student's quantile with one degree of freedom leaves few."""
    won = np.array([1.0] * 2 + [0.0] * 8 + [1.0] * 6 + [0.0] * 4)
    for level in (0.9, 0.95):
        z, t = stats.norm.ppf(0.5 + level / 2), stats.t.ppf(0.5 + level / 2, 1)
        trials = 6 * (z / t) ** 2
        found = clustered_rate(won, np.repeat([0, 1], 10), level=level)
        assert found == pytest.approx(wilson(0.4 * trials, trials, level=level))


def test_auc_interval_by_a_plain_loop() -> None:
    """Obuchowski 1997: what each answer adds to the area, summed over its cluster. Where one rises
    as the other falls, this is wider than Newcombe's."""
    generator = np.random.default_rng(0)
    clusters = np.repeat(np.arange(12), 10)
    level = generator.normal(0, 2, 12)[clusters]
    high, low = level + 1, -level + generator.normal(0, 1, 120)
    wins = [[(a > b) + 0.5 * (a == b) for b in low] for a in high]
    mean = sum(map(sum, wins)) / 120**2
    added = [0.0] * 12
    for number in range(120):
        added[clusters[number]] += (sum(wins[number]) / 120 - mean) / 120
        added[clusters[number]] += (sum(row[number] for row in wins) / 120 - mean) / 120
    half = stats.norm.ppf(0.975) * (12 / 11 * sum(each**2 for each in added)) ** 0.5
    found = auc(high, low, clusters=(clusters, clusters))
    assert found == pytest.approx((mean, mean - half, mean + half))


def test_auc_interval_covers_the_truth() -> None:
    """Both answers of 60 pairs share their prompt's level; AUC = Φ(1/√(2 + 2·½)). Newcombe's
    interval does not know that this makes pairs clearer, and is a little too wide."""
    truth = float(stats.norm.cdf(1 / math.sqrt(3)))
    generator = np.random.default_rng(9)
    pairs, hits = np.arange(60), 0
    for _ in range(1000):
        level = generator.normal(0, 0.5**0.5, 60)
        high, low = (level + generator.normal(mean, 1, 60) for mean in (1, 0))
        found = auc(high, low, clusters=(pairs, pairs))
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / 1000 <= 0.99


@pytest.mark.parametrize("m", [1, 2, 5, 40])
@pytest.mark.parametrize("n", [1, 2, 60])
def test_auc_of_noise_is_seldom_shown_to_be_above_one_half(m: int, n: int) -> None:
    """By DeLong's interval alone it is in 17 % of cases for two answers of each label, and in 39 %
    for one beside a hundred."""
    generator = np.random.default_rng(m + 100 * n)
    clusters = np.arange(m), m + np.arange(n)
    shown = [
        auc(generator.normal(size=m), generator.normal(size=n), clusters=clusters).low > 0.5
        for _ in range(600)
    ]
    assert np.mean(shown) <= 0.05


def test_auc_of_few_perfect_answers_by_hand() -> None:
    """All in order: the lower bound L solves 1 − L = z·√V(L)."""
    z = stats.norm.ppf(0.975)
    one = auc(np.ones(1), np.zeros(1), clusters=(np.zeros(1), np.ones(1)))
    assert one == (1.0, pytest.approx(wilson(1, 1).low), 1.0)  # V(L) = L(1 − L)
    low = auc(np.ones(6), np.zeros(6), clusters=(np.arange(6), np.arange(6))).low
    variance = low * (1 - low) * (1 + 5 * ((1 - low) / (2 - low) + low / (1 + low))) / 36
    assert 1 - low == pytest.approx(z * variance**0.5)
    assert low > 0.5
    # Thirty answers of two prompts say as much as two.
    prompts = np.repeat([0, 1], 15)
    assert auc(np.ones(30), np.zeros(30), clusters=(prompts, prompts)).low < 0.5


def rankings(generator: np.random.Generator, prompts: int, answers: int) -> Any:
    """`right` and the prompt of every pair in rankings by a noisy judge: C(K,2) pairs a prompt."""
    true = generator.normal(size=(prompts, answers))
    judged = true + generator.normal(size=(prompts, answers)) * np.exp(
        generator.normal(0, 0.5, (prompts, 1))
    )
    first, second = np.triu_indices(answers, 1)
    right = (true[:, first] > true[:, second]) == (judged[:, first] > judged[:, second])
    return right.astype(float).ravel(), np.repeat(np.arange(prompts), len(first))


@pytest.mark.parametrize("answers", [2, 4, 9])
def test_intervals_over_rankings_cover_the_truth(answers: int) -> None:
    """28 prompts of K answers. Resampling pairs would cover 55 % at K = 9."""
    generator = np.random.default_rng(answers)
    truth = rankings(generator, 20000, answers)[0].mean()
    hits, naive = np.zeros(2), 0
    trials = 400
    for trial in range(trials):
        right, prompt = rankings(generator, 28, answers)
        found = bootstrap_mean(right, clusters=prompt, seed=trial, samples=400)
        rate = clustered_rate(right, prompt)
        assert found.mean == pytest.approx(right.mean())
        hits += [found.low <= truth <= found.high, rate.low <= truth <= rate.high]
        plain = bootstrap_mean(right, seed=trial, samples=400)
        naive += plain.low <= truth <= plain.high
    assert (hits / trials >= 0.92).all(), hits / trials
    assert (hits / trials <= 0.985).all(), hits / trials
    if answers == 9:
        assert naive / trials < 0.75


@pytest.mark.parametrize("prompts", [1, 2, 3, 5, 7])
def test_few_clusters_are_little_evidence(prompts: int) -> None:
    """K = 9. Percentiles over the clusters would cover 50 % for 1 and 2, 87 % for 4."""
    generator = np.random.default_rng(prompts)
    truth = rankings(generator, 20000, 9)[0].mean()
    hits = np.zeros(2)
    trials = 400
    for trial in range(trials):
        right, prompt = rankings(generator, prompts, 9)
        found = bootstrap_mean(right, clusters=prompt, seed=trial, samples=100)
        rate = clustered_rate(right, prompt)
        known = not math.isnan(found.low)
        assert known == (prompts > 1)
        hits += [not known or found.low <= truth <= found.high, rate.low <= truth <= rate.high]
    assert (hits / trials >= 0.9).all(), hits / trials


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize("free", [1, 2, 3, 4, 9, 30])
def test_students_quantile_is_scipys(free: int, level: float) -> None:
    tolerance = 1e-9 if free < 3 else 0.01
    assert student(level, free) == pytest.approx(stats.t.ppf(0.5 + level / 2, free), rel=tolerance)


def test_clusters_of_one_change_nothing_and_one_cluster_is_no_evidence() -> None:
    values = np.array([0.0, 1.0, 1.0, 0.5, 1.0])
    assert bootstrap_mean(values, seed=2, clusters=np.arange(5)) == bootstrap_mean(values, seed=2)
    # A tie varies less: the variance is 0.16, as that of 5 · 0.21 / 0.16 wins and losses.
    assert clustered_rate(values, np.arange(5))[1:] == pytest.approx(wilson(4.59375, 6.5625)[1:])
    assert clustered_rate(values) == clustered_rate(values, np.arange(5))
    assert clustered_rate(np.ones(40), np.repeat([0, 1], 20)) == wilson(2, 2)
    assert math.isnan(clustered_rate(np.empty(0), np.empty(0)).mean)


def test_clustered_rate_by_hand() -> None:
    # Clusters of 3, 3 and 1 win 3, 0 and 1 of 7. Their sums of deviations are 9/7, −12/7, 3/7:
    # variance 3/2 · (81 + 144 + 9)/7⁴ = 351/2401, trials (4/7 · 3/7)/variance = 588/351, less the
    # square of 1.959964 over Student's 4.302653 with 2 degrees of freedom.
    won, clusters = np.array([1.0, 1, 1, 0, 0, 0, 1]), np.array([4, 4, 4, 2, 2, 2, 9])
    known = (1.959964 / 4.302653) ** 2
    trials = 588 / 351 * known
    assert clustered_rate(won, clusters) == pytest.approx(wilson(4 / 7 * trials, trials), abs=1e-6)
    # The formula gives (2/3 · 1/3) · 36 = 8 trials here, but there are no more than 6 values.
    pairs, won = np.repeat([0, 1, 2], 2), np.array([1.0, 1, 1, 0, 0, 1])
    found = clustered_rate(won, pairs)
    assert found == pytest.approx(wilson(4 * known, 6 * known), abs=1e-6)
    assert clustered_rate(np.zeros(6), pairs) == wilson(0, 3)


def test_wilsons_bounds_hold_rates_of_nothing_and_all() -> None:
    for trials in range(1, 501):
        assert wilson(0, trials).low == 0.0
        assert wilson(trials, trials).high == 1.0
