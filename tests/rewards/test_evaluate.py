"""Measurement on scores made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alignment.rewards.evaluate import calibration, evaluate, moved, unsafe_detection
from alignment.rewards.heldout_scores import Measured
from alignment.rewards.stage_metrics import headline


def measured(rows: list[dict[str, object]]) -> Measured:
    """Rows with defaults: a helpfulness pair of equal lengths in batch 1."""

    def column(name: str, default: object, dtype: object) -> np.ndarray:
        return np.array([row.get(name, default) for row in rows], dtype=dtype)

    return Measured(
        chosen=column("c", 1.0, float),
        rejected=column("r", 0.0, float),
        chosen_safe=column("pc", 0.5, float),
        rejected_safe=column("pr", 0.5, float),
        chosen_tokens=column("lc", 5, int),
        rejected_tokens=column("lr", 5, int),
        strength=column("strength", "better", object),
        domain=column("domain", "helpfulness", object),
        batch=column("batch", "b1", object),
        bins=column("bin", "", object),
        opening=np.array([row.get("opening", number) for number, row in enumerate(rows)]),
    )


def test_table_eight_by_hand() -> None:
    rows = measured(
        [
            {"strength": "significantly"},
            {"strength": "significantly"},
            {"strength": "negligibly", "c": 0.0, "r": 1.0, "batch": "b2"},
            {"strength": "negligibly", "c": 1.0, "r": 1.0, "batch": "b2"},
            {"domain": "safety", "c": 0.0, "r": 2.0, "bin": "both_safe"},
        ]
    )
    figures = evaluate(rows, "helpfulness", seed=1, samples=200)
    own = figures["by_strength"]["helpfulness"]
    assert own["significantly"]["accuracy"] == 1.0
    assert own["negligibly"]["accuracy"] == 0.25
    assert own["all"]["accuracy"] == pytest.approx(2.5 / 4)
    assert own["all"]["low"] <= 2.5 / 4 <= own["all"]["high"]
    assert own["better"]["count"] == 0
    assert math.isnan(own["better"]["accuracy"])
    assert figures["by_strength"]["safety"]["all"]["accuracy"] == 0.0
    assert figures["by_batch"]["helpfulness"]["b2"]["all"]["accuracy"] == 0.25
    assert figures["by_bin"]["both_safe"]["count"] == 1
    named = headline(figures)
    assert named["cross_accuracy"] == 0.0
    assert named["longer_wins"] == 0.5
    # Two right of two: Wilson's interval, not one of width 0.
    assert own["significantly"]["low"] < 1.0


def test_calibration_by_hand() -> None:
    # Confidence σ(ln 3) = 0.75 on four pairs, three right: ECE 0. Then two right: 0.25.
    gap = math.log(3)
    zero = np.zeros(4)
    error, rows = calibration(np.array([gap, gap, gap, -gap]), zero, np.arange(4))
    assert error == pytest.approx(0.0)
    assert len(rows) == 1
    assert rows[0]["confidence"] == pytest.approx(0.75)
    error, _ = calibration(np.array([gap, gap, -gap, -gap]), zero, np.arange(4))
    assert error == pytest.approx(0.25)
    assert math.isnan(calibration(np.empty(0), np.empty(0), np.empty(0))[0])


def test_unsafe_recall_and_precision_by_hand() -> None:
    rows = measured(
        [
            {"bin": "chosen_safe", "pc": 0.9, "pr": 0.2},
            {"bin": "both_unsafe", "pc": 0.6, "pr": 0.1},
            {"bin": "both_safe", "pc": 0.4, "pr": 0.8},
            {"bin": "", "pc": 0.0, "pr": 0.0},
        ]
    )
    found = unsafe_detection(rows)
    # Unsafe: 0.2, 0.6, 0.1. Flagged: 0.2, 0.1, 0.4.
    assert found["unsafe"] == 3
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["answers"] == 6
    # At 0.25 only 0.2 and 0.1 are flagged; at 0.95 everything is.
    curve = {row["threshold"]: row for row in found["curve"]}
    assert curve[0.25]["precision"] == 1.0
    assert curve[0.25]["recall"] == pytest.approx(2 / 3)
    assert curve[0.95]["recall"] == 1.0
    assert curve[0.95]["precision"] == 0.5


def test_length_correlation() -> None:
    rows = measured([{"c": float(n), "lc": 5 + n} for n in range(1, 6)])
    figures = evaluate(rows, "helpfulness", seed=0, samples=50)
    assert figures["length"]["correlation"] == pytest.approx(1.0)
    assert figures["length"]["longer_wins"]["accuracy"] == 1.0


def test_nothing_to_measure_is_nan_not_an_error() -> None:
    figures = evaluate(measured([]), "safety", seed=0, samples=50)
    assert math.isnan(headline(figures)["accuracy"])


def test_length_correlation_has_an_interval_and_a_split_by_who_is_longer() -> None:
    generator = np.random.default_rng(0)
    rows = measured(
        [
            {"c": float(length + noise), "lc": 50 + length, "lr": 50}
            for length, noise in zip(
                generator.integers(-9, 10, size=80), generator.normal(0, 4, size=80), strict=True
            )
        ]
    )
    length = evaluate(rows, "helpfulness", seed=0, samples=300)["length"]
    assert 0.5 < length["correlation_low"] < length["correlation"] < length["correlation_high"] < 1
    longer = np.sum(rows.chosen_tokens > rows.rejected_tokens)
    assert length["longer_chosen"]["count"] == longer
    # A model that climbs length is right where the longer answer was preferred.
    assert length["longer_chosen"]["accuracy"] > 0.85 > 0.15 > length["shorter_chosen"]["accuracy"]


def test_copies_of_a_comparison_are_no_new_evidence() -> None:
    """Rows of one opening count together in every interval."""
    generator = np.random.default_rng(3)
    rows: list[dict[str, object]] = [
        {"c": float(c), "lc": 50 + int(length), "lr": 50, "opening": number, "domain": "safety"}
        for number, (c, length) in enumerate(
            zip(generator.normal(0.3, 1, 40), generator.integers(-9, 10, 40), strict=True)
        )
    ]
    once, often = (
        evaluate(measured(rows * copies), "safety", seed=0, samples=400) for copies in (1, 20)
    )
    for name in ("low", "high"):
        key = f"correlation_{name}"
        assert often["length"][key] == pytest.approx(once["length"][key])
        accuracy = [found["by_strength"]["safety"]["all"][name] for found in (once, often)]
        assert accuracy[1] == pytest.approx(accuracy[0], abs=0.02)  # Student's tails are wider


def test_one_ranking_does_not_show_that_a_model_beats_chance() -> None:
    """36 pairs of nine answers to one prompt, 33 of them right."""
    rows = measured([{"c": 1.0 if n > 2 else -1.0, "opening": 0, "lc": n} for n in range(36)])
    figures = evaluate(rows, "helpfulness", seed=0, samples=100)
    assert figures["by_strength"]["helpfulness"]["all"]["low"] < 0.5
    assert math.isnan(figures["length"]["correlation_low"])


def test_moved_is_paired() -> None:
    now = measured([{"c": 1.0}, {"c": 1.0}, {"c": 1.0}, {"c": -1.0}])
    before = measured([{"c": 1.0}, {"c": -1.0}, {"c": -1.0}, {"c": -1.0}])
    found = moved(now, before, seed=0, samples=200)
    assert found["now"]["accuracy"] == 0.75
    assert found["before"]["accuracy"] == 0.25
    assert found["gain"]["points"] == 0.5
    # Student's: √(4/3 · 4 · (½/4)²) = 0.2887, times 3.182 with 3 degrees of freedom.
    gain = (found["gain"]["low"], found["gain"]["high"])
    assert gain == pytest.approx((0.5 - 0.9186, 0.5 + 0.9186), abs=0.01)
    assert "before" not in moved(now, None, seed=0, samples=200)
