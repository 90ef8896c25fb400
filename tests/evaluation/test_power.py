"""The chance of promotion that `align plan` shows, against the gate on simulated evaluations."""

from __future__ import annotations

from statistics import NormalDist

import pytest

from alignment.evaluation.power import promotion_chance, prompts_needed
from tests.benchmarks.gate_power import Evaluations


@pytest.mark.parametrize(
    ("rates", "prompts"),
    [((0.5, 0.5), 200), ((0.55, 0.55), 200), ((0.6, 0.6), 100), ((0.6, 0.5), 200)],
)
def test_it_is_what_the_gate_does(rates: tuple[float, float], prompts: int) -> None:
    """Within 5 points: so few runs err by 1, and wins are whole numbers."""
    simulated = Evaluations(runs=1500).promoted(rates, prompts)
    assert promotion_chance(rates, prompts, 0.05) == pytest.approx(simulated, abs=0.05)


def test_by_hand() -> None:
    """400 prompts: Wilson's interval around 0.5 ends at 0.5 + 0.5·1.96/√(400 + 1.96²) = 0.5488; at
    a margin of 0 both axes must be above it."""
    above = 1 - NormalDist(0.55, (0.55 * 0.45 / 400) ** 0.5).cdf(0.548766)
    assert promotion_chance((0.55, 0.55), 400, 0.0) == pytest.approx(above**2, abs=1e-5)
    assert promotion_chance((0.55, 0.55), 0, 0.05) == 0.0


def test_prompts_needed_is_the_first_ten_that_suffice() -> None:
    needed = prompts_needed((0.55, 0.55), 0.8, 0.05)
    assert needed is not None
    assert promotion_chance((0.55, 0.55), needed, 0.05) >= 0.8
    assert promotion_chance((0.55, 0.55), needed - 10, 0.05) < 0.8
    assert prompts_needed((0.5, 0.5), 0.8, 0.05) is None
