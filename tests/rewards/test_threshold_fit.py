"""Thresholds on P(safe): what is fitted, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from alignment.config.rewards import CombineConfig
from alignment.errors import ConfigError
from alignment.rewards.threshold import threshold_on_others, write_labelled
from alignment.rewards.threshold_fit import Kind, cross_fitted, fit_threshold
from alignment.utils.statistics import clustered_rate


def row_of(*runs: tuple[int, bool]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers in the order of P(safe), in runs of safe or unsafe ones; each its own opening."""
    unsafe = np.concatenate([np.full(count, label) for count, label in runs])
    return np.arange(1, len(unsafe) + 1) / (len(unsafe) + 1), unsafe, np.arange(len(unsafe))


def test_precision_by_hand() -> None:
    """Wilson's lower end of n out of n is n / (n + z²), and z² = 1.6424 for 90 % one-sided: 15 are
    enough for 0.9 and 14 are not."""
    chance, unsafe, openings = row_of((15, True), (4, False), (1, True))
    found = fit_threshold(chance, unsafe, openings, "precision", 0.9)
    assert found.threshold == pytest.approx(15.5 / 21)  # halfway to the next value
    assert (found.precision, found.recall) == pytest.approx((1.0, 15 / 16))
    with pytest.raises(ValueError, match=r"0\.9 with 90% confidence on 19 .*15 .*best 0\.895"):
        fit_threshold(*row_of((14, True), (4, False), (1, True)), "precision", 0.9)


def test_recall_by_hand() -> None:
    """Of 20 unsafe answers 14 have the lower end 0.558, and 15 have 0.610."""
    found = fit_threshold(*row_of((16, True), (9, False), (4, True)), "recall", 0.6)
    assert (found.precision, found.recall) == pytest.approx((1.0, 15 / 20))
    assert found.threshold == pytest.approx(15.5 / 30)


def test_answers_to_one_opening_are_not_independent() -> None:
    chance, unsafe, _ = row_of((15, True), (5, False))
    with pytest.raises(ValueError, match=r"best 0\.753"):  # 5 openings: 5 / (5 + z²)
        fit_threshold(chance, unsafe, np.arange(20) // 3, "precision", 0.9)


@pytest.mark.parametrize(("kind", "wish"), [("precision", 0.5), ("recall", 0.6)])
def test_against_brute_force(kind: Kind, wish: float) -> None:
    generator = np.random.default_rng(0)
    for size in (1, 2, 5):
        # Rounded, so that many answers share a probability.
        chance = np.round(generator.random(60), 1)
        unsafe = generator.random(60) < 0.3 + 0.6 * (chance < 0.5)
        openings = generator.permutation(60) // size
        found = fit_threshold(chance, unsafe, openings, kind, wish)
        best = 0.0
        for cut in np.arange(0.05, 1.1, 0.1):
            said = chance < cut
            if not said.any():
                continue
            precision = unsafe[said].astype(float), openings[said]
            recall = said[unsafe].astype(float), openings[unsafe]
            wished, other = (precision, recall) if kind == "precision" else (recall, precision)
            if clustered_rate(*wished, level=0.8).low >= wish:
                best = max(best, other[0].mean())
        assert best > 0
        assert (found.recall if kind == "precision" else found.precision) == pytest.approx(best)
        said = chance < found.threshold
        assert (said & unsafe).sum() / said.sum() == pytest.approx(found.precision)


def test_thresholds_lie_halfway_to_the_next_value() -> None:
    ends = fit_threshold(*row_of((4, False), (16, True)), "recall", 0.9)
    assert (ends.threshold, ends.precision, ends.recall) == pytest.approx(
        ((20 / 21 + 1) / 2, 0.8, 1.0)  # behind the last value lies 1
    )
    certain = np.array([1.0] * 16)
    assert fit_threshold(certain, certain > 0, np.arange(16), "precision", 0.9).threshold > 1.0


def test_what_is_said_is_true_of_other_answers() -> None:
    """25 deliveries of 60 answers: on their own answers thresholds look some 5 points better than
    they are; what is said errs by one on average. Benchmarks (`coverage`) look at more."""
    generator = np.random.default_rng(1)

    def draw(pairs: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        openings = np.repeat(np.arange(pairs), 2)
        unsafe = generator.random(2 * pairs) < 0.4
        level = 0.5 * generator.normal(size=pairs)[openings]
        logit = np.where(unsafe, -1.3, 1.3) + level + generator.normal(size=2 * pairs)
        return 1 / (1 + np.exp(-logit)), unsafe, openings

    chance, unsafe, _ = draw(100_000)
    errors, flattery, held = [], [], []
    for number in range(25):
        rows = draw(30)
        found = fit_threshold(*rows, "precision", 0.75)
        true = unsafe[chance < found.threshold].mean()
        said = cross_fitted(*rows, "precision", 0.75, seed=number).precision
        flattery.append(found.precision - true)
        errors.append(said.mean - true)
        held.append(said.low <= true <= said.high)
    assert np.mean(flattery) > 0.03
    assert abs(np.mean(errors)) < 0.02
    assert np.mean(held) > 0.9


def test_nothing_below_has_no_precision() -> None:
    chance, unsafe, openings = row_of((1, True), (19, False))
    said = cross_fitted(chance, unsafe, openings, "precision", 0.9, seed=0)
    # Left out, the only unsafe answer leaves no fold that could fit a threshold.
    assert np.isnan(said.precision.mean) or said.precision.mean < 0.5
    assert said.recall.mean == 0.0


def test_refuses_the_impossible() -> None:
    with pytest.raises(ValueError, match="no unsafe"):
        fit_threshold(*row_of((5, False)), "recall", 0.5)
    with pytest.raises(ValidationError, match="less than 1"):  # nothing is certain
        CombineConfig.model_validate({"method": "piecewise", "threshold_for": {"recall": 1.0}})


def test_the_figures_of_a_stage(tmp_path: Path) -> None:
    config = CombineConfig.model_validate(
        {"method": "piecewise", "threshold_for": {"precision": 0.9}}
    )
    chance, unsafe, openings = row_of((40, True), (3, False), (4, True), (60, False))
    write_labelled(tmp_path, unsafe, chance, openings)
    told = threshold_on_others(config, tmp_path)
    assert told is not None
    text, figures = told
    assert "not fitted to it has precision 0.9" in text
    assert "(107 held-out answers, 44 unsafe)" in text
    assert figures["threshold_precision_low"] < figures["threshold_precision"] < 1.0
    assert 0.85 < figures["threshold_recall"] < 1.0
    assert threshold_on_others(CombineConfig(), tmp_path) is None
    write_labelled(tmp_path, unsafe[:50], chance[:50], openings[:50] // 10)  # of five openings
    with pytest.raises(ConfigError, match="cannot be fitted"):
        threshold_on_others(config, tmp_path)
