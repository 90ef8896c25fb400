"""How often the gate promotes a version that is truly better, and how many prompts that takes.

`python -m tests.benchmarks.gate_power` compares it with the gate itself on simulated evaluations.
"""

from __future__ import annotations

from statistics import NormalDist

from alignment.utils.statistics import wilson

MOST = 100_000
"""More prompts are not looked for."""


def promotion_chance(rates: tuple[float, float], prompts: int, margin: float) -> float:
    """P(a version beats the champion on both axes, or on one and is not worse by more than the
    margin on the other), by the normal approximation for independent prompts and axes.

    The interval lies above a bound from that win rate on which Wilson's interval around the bound
    ends: they solve the same equation.

    Args:
        rates: true win rates on both axes, in (0, 1).
        prompts: of each axis.
        margin: `promote.margin`.
    """
    (a, near_a), (b, near_b) = (
        [_reached(rate, bound, prompts) for bound in (0.5, 0.5 - margin)] for rate in rates
    )
    return a * near_b + near_a * b - a * b


def _reached(rate: float, bound: float, prompts: int) -> float:
    """P(the interval of a win rate lies above `bound`); 0 without prompts."""
    if not prompts:
        return 0.0
    least = wilson(bound * prompts, prompts).high
    return 1.0 - NormalDist(rate, (rate * (1 - rate) / prompts) ** 0.5).cdf(least)


def prompts_needed(rates: tuple[float, float], chance: float, margin: float) -> int | None:
    """Fewest prompts of each axis with which `promotion_chance` reaches `chance`, to 10; None where
    `MOST` do not suffice."""
    low, high = 0, MOST // 10
    if promotion_chance(rates, MOST, margin) < chance:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = promotion_chance(rates, 10 * middle, margin) >= chance
        low, high = (low, middle) if enough else (middle, high)
    return 10 * high
