"""Spoilt answers: what they are made of, whose they are, and that a guard learns from them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from pydantic import ValidationError

from alignment.config.rewards import RewardsConfig
from alignment.config.vocabulary import Domain
from alignment.preferences.schema import Comparison, Producer, SafetyBin
from alignment.rewards.mixture import Source
from alignment.rewards.synthetic_negatives import looped, scrambled, spoilt


def source(number: int, domain: Domain = "helpfulness", label: SafetyBin | None = None) -> Source:
    return Source(
        "b1",
        Comparison(
            conversation=[{"role": "user", "content": f"question {number}"}],
            chosen=f"the answer to {number} is quite long .",
            rejected="no",
            strength="slightly",
            domain=domain,
            safety_bin=label,
        ),
    )


def draws(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(count)]


def test_a_loop_repeats_neighbouring_words_and_loses_none() -> None:
    words = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]
    seen = set()
    for draw in draws(300):
        found = looped(" ".join(words), draw).split()
        assert len(words) < len(found) <= len(words) + 24
        # Take the repetition out again: what is left is the answer.
        left = [
            (start, length)
            for length in range(1, 9)
            for start in range(len(words))
            if _once(found, start, length) == words
        ]
        assert left, found
        seen.add(len(found) - len(words))
    assert len(seen) > 8
    assert set(looped("one", np.random.default_rng(0)).split()) == {"one"}
    assert looped("", np.random.default_rng(0)) == ""


def _once(words: list[str], start: int, length: int) -> list[str]:
    """Words without the copies of `words[start:start + length]` that follow it."""
    span, rest = words[start : start + length], words[start + length :]
    while span and rest[:length] == span:
        rest = rest[length:]
    return [*words[:start], *span, *rest]


def test_scrambling_keeps_the_words_and_changes_their_order() -> None:
    text = "a b c d e f g h"
    found = [scrambled(text, draw) for draw in draws(200)]
    assert all(sorted(one.split()) == text.split() for one in found)
    assert np.mean([one != text for one in found]) > 0.8
    assert scrambled("one", np.random.default_rng(0)) == "one"
    assert scrambled("", np.random.default_rng(0)) == ""


def test_the_chosen_answer_beats_itself_spoilt() -> None:
    sources = [source(number) for number in range(300)]
    made = spoilt(sources, 1.0, seed=0)
    assert 280 <= len(made) <= 300  # a few are drawn that spoiling does not change
    chosen = {s.comparison.conversation[0]["content"]: s.comparison.chosen for s in sources}
    kinds: Counter[str] = Counter()
    for one in made:
        row = one.comparison
        assert row.chosen == chosen[row.conversation[0]["content"]]
        assert row.rejected != row.chosen
        same = sorted(row.rejected.split()) == sorted(row.chosen.split())
        stray = row.rejected in chosen.values()
        kinds["scrambled" if same else "stray" if stray else "looped"] += 1
    assert min(kinds[name] for name in ("scrambled", "stray", "looped")) > 70


def test_the_share_is_drawn_by_seed_and_id_alone() -> None:
    sources = [source(number) for number in range(400)]
    made = spoilt(sources, 0.25, seed=0)
    assert len(made) == pytest.approx(100, abs=30)
    assert spoilt(sources, 0.25, seed=0) == made
    assert spoilt(sources, 0.25, seed=1) != made
    assert spoilt(sources, 0.0, seed=0) == []
    questions = [one.comparison.conversation[0]["content"] for one in made]
    back = spoilt(sources[::-1], 0.25, seed=0)
    assert [one.comparison.conversation[0]["content"] for one in back] == questions[::-1]


@pytest.mark.parametrize(
    ("label", "expected"),
    [("chosen_safe", "both_safe"), ("both_safe", "both_safe"), ("both_unsafe", "both_unsafe")],
)
def test_a_spoilt_answer_is_as_safe_as_it_was(label: SafetyBin, expected: str) -> None:
    sources = [source(number, "safety", label) for number in range(60)]
    made = spoilt([*sources, source(99)], 1.0, seed=0)
    safety = [one.comparison for one in made if one.comparison.domain == "safety"]
    assert 20 < len(safety) < 60  # no stray ones
    assert {row.safety_bin for row in safety} == {expected}
    chosen = {s.comparison.chosen for s in sources}
    assert all(row.rejected not in chosen for row in safety)


def test_a_cut_answer_stays_cut_beside_its_spoilt_copy() -> None:
    """Else the end alone would tell the two apart, or a guard would read an end that was none."""
    by = Producer(version="sft", temperature=1.0, finished=False)
    whole = [source(number) for number in range(100)]
    cut = [
        Source(one.batch, one.comparison.model_copy(update={"chosen_by": by})) for one in whole[:50]
    ]
    ends = {one.comparison.chosen: False for one in cut} | {
        one.comparison.chosen: True for one in whole[50:]
    }
    made = [one.comparison for one in spoilt([*cut, *whole[50:]], 1.0, seed=0)]
    strays = [row for row in made if row.rejected in ends]
    assert min(len(strays), len(made) - len(strays)) > 20
    for row in made:
        (_, chosen), (text, rejected) = row.answers
        assert chosen == ends[row.chosen]
        assert rejected == ends.get(text, chosen)


def test_without_guards_it_means_nothing() -> None:
    with pytest.raises(ValidationError, match="trains none"):
        RewardsConfig(guard_spoilt=0.5)
    assert RewardsConfig(guard_spoilt=0.5, guard_share=0.2).guard_spoilt == 0.5
