"""What is said of a judge that looks at the place of an answer."""

from __future__ import annotations

import numpy as np
import pytest

from alignment.evaluation.position_bias import bias_figures, in_words
from alignment.utils.statistics import wilson


def judge(place: np.ndarray, subjects: np.ndarray | None = None) -> dict[str, float]:
    numbers = np.arange(len(place)) if subjects is None else subjects
    about = {"pairs": float(len(place)), "inconsistent": float(np.mean(place != 0)), "failed": 0.0}
    return about | bias_figures(place, numbers)


def test_by_hand() -> None:
    """Of 100 pairs 30 go to the first place and 10 to the second: 20 % net, 75 % of what turns."""
    place = np.repeat([1.0, -1.0, 0.0], [30, 10, 60])
    figures = judge(place)
    assert figures["position_bias"] == pytest.approx(0.2)
    assert figures["first_favoured"] == pytest.approx(0.75)
    expected = wilson(30, 40)
    assert (figures["first_favoured_low"], figures["first_favoured_high"]) == pytest.approx(
        (expected.low, expected.high)
    )
    # The deviation of the mean of 100 values −1, 0, 1 is √(0.4 − 0.2²) / 10 = 0.06.
    assert figures["position_bias_low"] == pytest.approx(0.2 - 1.96 * 0.06, abs=0.02)
    assert figures["position_bias_high"] == pytest.approx(0.2 + 1.96 * 0.06, abs=0.02)
    line, *more = in_words(figures)
    assert "the order changed 40.0% of the verdicts" in line
    assert "75 % [60–86] went to the answer read first" in line
    assert more == []  # the interval of 20 % begins below a tenth


def test_a_large_bias_is_a_warning_and_chance_is_none() -> None:
    place = np.repeat([1.0, -1.0, 0.0], [300, 50, 650])
    (_, warning) = in_words(judge(place))
    assert warning.startswith("Warning: the LM judge prefers the answer that it reads first")
    assert "25% of all pairs net" in warning
    (_, warning) = in_words(judge(-place))
    assert "reads second" in warning
    # Ten subjects with a hundred like pairs each say no more than ten pairs.
    assert (
        len(in_words(judge(np.repeat([1.0] * 3 + [0.0] * 7, 100), np.repeat(range(10), 100)))) == 1
    )
    generator = np.random.default_rng(0)
    fair = [judge(generator.choice([-1.0, 0.0, 1.0], 100, p=[0.2, 0.6, 0.2])) for _ in range(200)]
    assert sum(len(in_words(figures)) > 1 for figures in fair) == 0
    held = [f["position_bias_low"] <= 0 <= f["position_bias_high"] for f in fair]
    assert np.mean(held) > 0.9


def test_no_pair_says_nothing() -> None:
    assert bias_figures(np.empty(0), np.empty(0)) == {}
    assert in_words({}) == []
    (line,) = in_words(judge(np.zeros(50)))
    assert line.endswith("changed 0.0% of the verdicts.")
