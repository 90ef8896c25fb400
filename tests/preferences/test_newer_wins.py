"""How often the newer version wins, and how sure that is."""

from __future__ import annotations

import numpy as np
import pytest

from alignment.preferences.newer_wins import NewerWins, newer_in_words
from alignment.preferences.rows import By, Draft
from alignment.utils.statistics import wilson


def draft(won: bool, newer: float = 1.0, older: float = 1.0, annotator: str | None = None) -> Draft:
    sides = By("rlhf-v10", newer), By("rlhf-v9", older)
    chosen, rejected = sides if won else sides[::-1]
    return Draft(
        turns=[("user", "?")],
        chosen="a",
        rejected="b",
        strength="better",
        chosen_by=chosen,
        rejected_by=rejected,
        annotator=annotator,
    )


def test_an_interval_over_openings() -> None:
    alone, together = NewerWins(), NewerWins()
    for number in range(40):
        alone.add(draft(number < 28), number)
        together.add(draft(number < 28), number // 4)  # turns of ten dialogues, each won or lost
    figures = alone.to_dict()
    expected = wilson(28, 40)
    assert (figures["pairs"], figures["share"], figures["over"]) == (40, 0.7, "openings")
    assert (figures["low"], figures["high"]) == pytest.approx(
        (expected.low, expected.high), abs=1e-4
    )
    clustered = together.to_dict()
    assert clustered["share"] == 0.7
    # As wide as ten trials, not 40.
    assert clustered["high"] - clustered["low"] > 1.8 * (figures["high"] - figures["low"])


def test_annotators_who_lean_widen_it() -> None:
    """Ten people, each always for the newer or always for the older: ten trials, not 200. What
    three people have in common cannot be told from them."""
    for people, over in ((10, "annotators"), (3, "openings")):
        counted = NewerWins()
        for number in range(200):
            name = number % people
            counted.add(draft(name % 2 == 0, annotator=f"person {name}"), number)
        figures = counted.to_dict()
        assert figures["over"] == over
        assert (figures["high"] - figures["low"] > 0.5) == (over == "annotators")
    unnamed = NewerWins()
    for number in range(200):
        unnamed.add(
            draft(number % 2 == 0, annotator=None if number == 7 else f"{number % 10}"), number
        )
    assert unnamed.to_dict()["over"] == "openings"


def test_temperatures_of_both_sides_are_told() -> None:
    counted = NewerWins()
    for number in range(30):
        counted.add(draft(True, 1.2, 0.8), number)
    for number in range(10):
        counted.add(draft(number < 2, 0.8, 1.2), 100 + number)
    figures = counted.to_dict()
    assert figures["temperature"] == {"newer": 1.1, "older": 0.9}
    assert figures["hotter"] == {"pairs": 30, "share": 1.0}
    assert figures["cooler"] == {"pairs": 10, "share": 0.2}
    text = newer_in_words(figures)
    assert text.startswith("80.0% [65%–90%, over openings] of 40; drawn at T 1.10")
    assert "drawn at T 1.10, the older at T 0.90 on average" in text
    assert "100% of 30 where it was hotter, 20% of 10 where it was cooler" in text
    same = NewerWins()
    same.add(draft(True), 1)
    assert "drawn at" not in newer_in_words(same.to_dict())
    assert newer_in_words({"pairs": 4, "share": 0.75}) == "75.0% of 4"  # of release 0.1


def test_only_two_known_versions_count() -> None:
    counted = NewerWins()
    counted.add(Draft([("user", "?")], "a", "b", "better", chosen_by=By("sft", 1.0)), 1)
    counted.add(
        Draft(
            [("user", "?")], "a", "b", "better", chosen_by=By("sft", 1), rejected_by=By("sft", 2)
        ),
        2,
    )
    assert counted.to_dict() == {"pairs": 0, "share": None}


def test_the_interval_holds_the_truth_where_people_lean() -> None:
    """12 annotators with leanings of their own, 20 pairs each, two to an opening."""
    generator = np.random.default_rng(0)
    held = {"with names": 0, "without": 0}
    rounds = 60
    for _ in range(rounds):
        leaning = generator.normal(0, 0.8, 12)
        truth = 0.5  # leanings are about ½ on both sides alike
        named, unnamed = NewerWins(), NewerWins()
        for number in range(240):
            person = number % 12
            won = bool(generator.random() < 1 / (1 + np.exp(-leaning[person])))
            named.add(draft(won, annotator=str(person)), number // 2)
            unnamed.add(draft(won), number // 2)
        for name, counted in (("with names", named), ("without", unnamed)):
            figures = counted.to_dict()
            held[name] += figures["low"] <= truth <= figures["high"]
    assert held["with names"] / rounds > 0.9
    assert held["without"] / rounds < 0.85
