"""Win rates against brute force and planted truths."""

import numpy as np
import pytest
from scipy.optimize import minimize

from alignment.evaluation.winrate import length_controlled, outcomes, support, win_rate
from alignment.utils.statistics import wilson


def test_outcomes_by_hand():
    assert outcomes([1, 2, 3, 4], [2, 2, 1, 4.05], tie_margin=0.1).tolist() == [0, 0.5, 1, 0.5]


@pytest.mark.parametrize("bad", [([1.0], [1.0, 2.0]), ([float("nan")], [0.0])])
def test_outcomes_refuse_what_is_no_pair(bad):
    with pytest.raises(ValueError, match=r"pairs|NaN"):
        outcomes(*bad)


def test_rate_counts_ties_as_half():
    found = win_rate(outcomes([3, 1, 2, 5], [1, 3, 2, 0]), [1] * 4, [1] * 4)
    assert found.rate.mean == (1 + 0 + 0.5 + 1) / 4
    assert found.ties == 0.25
    assert found.n == 4
    assert found.row()["win_rate"] == found.rate.mean


def test_rates_of_both_sides_sum_to_one():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 4, 60), rng.integers(0, 4, 60)
    la, lb = rng.integers(1, 50, 60), rng.integers(1, 50, 60)
    ab, ba = win_rate(outcomes(a, b), la, lb), win_rate(outcomes(b, a), lb, la)
    assert ab.rate.mean + ba.rate.mean == pytest.approx(1)
    assert ab.rate.low + ba.rate.high == pytest.approx(1)
    assert ab.controlled.mean + ba.controlled.mean == pytest.approx(1)
    assert ab.length_gap == -ba.length_gap


def test_ties_make_the_interval_narrower_by_hand():
    """1, 0, ½, 1: the mean is 5/8 and the variance 11/64, so four prompts vary as
    4 · 15/64 / (11/64) = 60/11 wins and losses do."""
    won = np.array([1.0, 0.0, 0.5, 1.0])
    found = win_rate(won, np.ones(4), np.ones(4), level=0.8).rate
    assert found == pytest.approx(wilson(0.625 * 60 / 11, 60 / 11, level=0.8))


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        won = (rng.random(80) < 0.7).astype(float)
        rate = win_rate(won, np.ones(80), np.ones(80)).rate
        covered += rate.low <= 0.7 <= rate.high
    assert 0.90 <= covered / 200 <= 0.99


def test_length_controlled_is_the_penalised_logistic_fit():
    rng = np.random.default_rng(2)
    gaps = rng.normal(5, 20, 50)
    won = rng.choice([0.0, 0.5, 1.0], 50)
    feature = np.tanh(gaps / 15.0)

    def loss(x):
        z = x[0] + x[1] * feature
        return (np.logaddexp(0, z) - won * z).sum() + 0.05 * (x**2).sum()

    best = minimize(loss, [0.0, 0.0], tol=1e-12).x
    found = length_controlled(won, gaps, 15.0)
    assert found.mean == pytest.approx(1 / (1 + np.exp(-best[0])), abs=1e-5)
    assert found.low < found.mean < found.high


def test_length_controlled_recovers_a_planted_bias():
    # Equal quality, but the judge likes length and A writes longer: raw ≫ ½, controlled ≈ ½.
    rng = np.random.default_rng(3)
    gaps = rng.normal(30, 40, 4000)
    feature = np.tanh(gaps / np.concatenate([gaps, np.zeros(4000)]).std())
    won = (rng.random(4000) < 1 / (1 + np.exp(-2.0 * feature))).astype(float)
    found = win_rate(won, gaps, np.zeros(4000))
    assert found.rate.mean > 0.65
    assert found.controlled.low < 0.5 < found.controlled.high
    assert abs(found.controlled.mean - 0.5) < 0.04


@pytest.mark.parametrize("shift", [0, 50, 100])
def test_length_controlled_covers_the_truth_where_lengths_identify_it(shift: int) -> None:
    """The judge pays length only, so that at equal length the rate is ½; A writes more."""
    rng = np.random.default_rng(shift)
    hits = 0
    for _ in range(300):
        b = rng.normal(500, 150, 300)
        a = b + rng.normal(shift, 100, 300)
        won = (rng.random(300) < 1 / (1 + np.exp(-(a - b) / 100))).astype(float)
        found = win_rate(won, a, b)
        hits += found.controlled.low <= 0.5 <= found.controlled.high
    assert 0.91 <= hits / 300 <= 0.985


@pytest.mark.parametrize(("prompts", "rate"), [(40, 0.8), (100, 0.95)])
def test_length_controlled_covers_the_truth_on_few_prompts(prompts: int, rate: float) -> None:
    """Percentiles of refits to resampled prompts held it in 89 % of cases on 40."""
    rng = np.random.default_rng(prompts)
    hits = 0
    for _ in range(400):
        a, b = rng.normal(100, 30, (2, prompts))
        feature = np.tanh((a - b) / np.concatenate([a, b]).std())
        chance = 1 / (1 + np.exp(-(np.log(rate / (1 - rate)) + feature)))
        found = win_rate((rng.random(prompts) < chance).astype(float), a, b).controlled
        hits += found.low <= rate <= found.high
    assert 0.91 <= hits / 400 <= 0.985


def test_the_variance_at_equal_length_by_brute_force() -> None:
    """Of an unpenalised fit to many prompts: that of its solutions for other verdicts."""
    rng = np.random.default_rng(8)
    gaps = rng.normal(0, 20, 600)
    chance = 1 / (1 + np.exp(-(0.4 + np.tanh(gaps / 20))))
    rates, halves = [], []
    for _ in range(300):
        found = length_controlled((rng.random(600) < chance).astype(float), gaps, 20.0, penalty=0.0)
        rates.append(found.mean)
        halves.append((found.high - found.low) / 2)
    assert np.mean(halves) / 1.96 == pytest.approx(np.std(rates), rel=0.1)


@pytest.mark.parametrize("shift", [300, 400])
def test_a_side_that_always_writes_more_has_no_length_controlled_rate(shift: int) -> None:
    """With gaps of 300 ± 50 the penalty alone would decide: 0.65 [0.62, 0.68] where ½ is true."""
    rng = np.random.default_rng(shift)
    b = rng.normal(500, 150, 300)
    a = b + rng.normal(shift, 50, 300)
    won = (rng.random(300) < 1 / (1 + np.exp(-(a - b) / 200))).astype(float)
    found = win_rate(won, a, b)
    assert np.isnan(found.controlled).all()
    assert found.support < 0.01
    assert found.row()["lc_win_rate"] is None
    assert found.rate.mean > 0.7
    assert support([1.0, 1.0, 0.0, -1.0]) == 0.5
    # One length for all answers is no obstacle: there is no effect to remove.
    same = win_rate(won, np.ones(300), np.ones(300))
    assert same.controlled == same.rate


def test_length_controlled_keeps_a_planted_quality_gain():
    rng = np.random.default_rng(4)
    gaps = rng.normal(-20, 30, 4000)  # A is better and shorter, the judge likes length
    z = 1.0 + 1.5 * np.tanh(gaps / 30.0)
    won = (rng.random(4000) < 1 / (1 + np.exp(-z))).astype(float)
    found = length_controlled(won, gaps, 30.0)
    truth = 1 / (1 + np.exp(-1.0))
    assert found.low < truth < found.high


def test_clean_sweep_is_finite():
    found = length_controlled(np.ones(200), np.linspace(-3, 9, 200), 4.0)
    assert 0.98 < found.mean < 1


def test_clean_sweep_is_not_certain():
    sweep = win_rate(np.ones(20), np.zeros(20), np.zeros(20)).rate
    assert sweep.mean == 1
    assert sweep.low == pytest.approx(20 / (20 + 1.96**2), abs=1e-3)  # Wilson at p = 1
    # Ties alone say little: Wilson's interval leaves open 16.1 % of others for 0 of 20.
    ties = win_rate(np.full(20, 0.5), np.zeros(20), np.zeros(20)).rate
    assert ties == pytest.approx((0.5, 0.5 - 0.161 / 2, 0.5 + 0.161 / 2), abs=5e-4)


def test_equal_lengths_leave_the_raw_rate():
    won = np.array([1.0, 0.0, 1.0, 1.0])
    assert length_controlled(won, np.zeros(4), 3.0).mean == 0.75


def test_no_prompts_is_an_error():
    with pytest.raises(ValueError, match="no prompts"):
        win_rate([], [], [])


def test_prompts_about_one_subject_are_not_independent():
    rng = np.random.default_rng(3)
    won = (rng.random(30) < 0.7).astype(float)
    left, right = rng.integers(8, 16, 30).astype(float), rng.integers(8, 16, 30).astype(float)

    def rate(copies, subjects):
        columns = (np.repeat(column, copies) for column in (won, left, right))
        return win_rate(*columns, subjects=subjects)

    def width(interval):
        return interval.high - interval.low

    alone, each = rate(1, None), rate(1, np.arange(30))
    assert each.rate == alone.rate  # every prompt a subject of its own
    assert width(each.controlled) == pytest.approx(width(alone.controlled), rel=0.25)
    copied, known = rate(5, None), rate(5, np.repeat(np.arange(30), 5))
    assert known.rate.mean == pytest.approx(alone.rate.mean)
    for name in ("rate", "controlled"):
        of_one, of_five, honest = (getattr(one, name) for one in (alone, copied, known))
        assert width(of_five) < 0.6 * width(of_one)  # five copies tell no more than one
        assert width(honest) == pytest.approx(width(of_one), rel=0.25)


def test_a_clean_sweep_counts_subjects():
    length = np.ones(40)
    swept = win_rate(length, length, length, subjects=np.repeat(np.arange(10), 4))
    assert swept.rate == wilson(10, 10)
    tied = win_rate(0.5 * length, length, length, subjects=np.repeat(np.arange(10), 4))
    assert tied.rate.low == pytest.approx(0.5 - wilson(0, 10).high / 2)
