"""Which of many held-out comparisons are measured."""

from __future__ import annotations

from collections import Counter

from alignment.preferences.schema import Comparison
from alignment.rewards.heldout_sample import sampled
from alignment.rewards.mixture import Source


def source(opening: int, number: int, strength: str = "better") -> Source:
    """One of the comparisons that begin with the same question."""
    return Source(
        "b",
        Comparison(
            conversation=[{"role": "user", "content": f"question {opening}"}],
            chosen=f"yes {number}",
            rejected=f"no {number}",
            strength=strength,
            domain="helpfulness",
        ),
    )


def test_a_sorted_delivery_is_measured_whole_not_at_its_beginning() -> None:
    rows = [source(n, n, "significantly" if n < 500 else "negligibly") for n in range(2000)]
    found = sampled(rows, 500, "measured")
    assert len(found) == 500
    clear = sum(row.comparison.strength == "significantly" for row in found) / 500
    # A quarter is clear; of the first 500 rows all are. Four standard errors of a sample of 500.
    assert abs(clear - 0.25) < 0.08


def test_openings_are_drawn_whole_in_the_order_of_the_file() -> None:
    rows = [source(n // 4, n) for n in range(200)]
    found = sampled(rows, 30, "measured")
    numbers = [rows.index(row) for row in found]
    assert numbers == sorted(numbers)
    sizes = Counter(number // 4 for number in numbers).values()
    assert sorted(sizes) == [2, 4, 4, 4, 4, 4, 4, 4]  # 30 = 7 · 4 + 2: only the last one is cut
    # The same whatever stands beside them in the file, so that scores are found in the cache.
    backwards = sampled(rows[::-1], 30, "measured")
    assert {row.comparison.id for row in backwards} == {row.comparison.id for row in found}
    assert sampled(rows, 200, "measured") == rows


def test_one_opening_with_more_than_fits_is_cut() -> None:
    assert len(sampled([source(0, n) for n in range(50)], 20, "measured")) == 20
