"""Held-out comparisons: as many as asked for, and no prompt ever on both sides."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.preferences.split import EarlierSplit, split

NOBODY = EarlierSplit.of(np.zeros(0, np.uint64), np.zeros(0, bool))


def draw(rng: np.random.Generator, rows: int, openings: int) -> tuple[np.ndarray, np.ndarray]:
    names = rng.integers(0, 2**63, openings, dtype=np.uint64)
    return names[rng.integers(0, openings, rows)], rng.random(rows) < 0.4


def test_a_small_batch_gives_a_tenth_of_each_domain() -> None:
    openings, safety = draw(np.random.default_rng(0), 2000, 10**6)
    held = split(openings, safety, NOBODY, rows=1000, share=0.1)
    assert held.sum() == 200
    assert abs(int(held[safety].sum()) - 0.1 * int(safety.sum())) <= 1


def test_a_large_batch_gives_a_thousand() -> None:
    openings, safety = draw(np.random.default_rng(1), 50_000, 10**6)
    assert abs(int(split(openings, safety, NOBODY, rows=1000, share=0.1).sum()) - 1000) <= 1


def test_what_is_held_out_already_counts_towards_the_part() -> None:
    openings = np.arange(10, dtype=np.uint64)
    helpful = np.zeros(10, bool)
    # Opening 8 was held out by an earlier batch, 9 was not: of 3 wanted, the two lowest are new.
    earlier = EarlierSplit.of(np.array([8, 9], np.uint64), np.array([True, False]))
    held = split(openings, helpful, earlier, rows=3, share=0.5)
    assert np.flatnonzero(held).tolist() == [0, 1, 8]
    # One wanted, one known: nothing new.
    assert np.flatnonzero(split(openings, helpful, earlier, rows=1, share=0.5)).tolist() == [8]


def test_openings_are_told_apart_by_all_their_64_bits() -> None:
    near = np.array([2**63 + 1, 2**63 + 2], np.uint64)
    earlier = EarlierSplit.of(near, np.array([True, False]))
    assert earlier.openings.tolist() == near.tolist()
    held = split(near, np.zeros(2, bool), earlier, rows=1, share=0.5)
    assert held.tolist() == [True, False]


def test_nothing_is_held_out_of_nothing() -> None:
    none = np.zeros(0, np.uint64)
    assert len(split(none, none.astype(bool), NOBODY, rows=1000, share=0.1)) == 0
    one = np.array([5], np.uint64)
    assert not split(one, np.array([True]), NOBODY, rows=1000, share=0.1).any()


@given(seed=st.integers(0, 10**6), openings=st.integers(1, 300), share=st.floats(0, 0.5))
@settings(max_examples=150)
def test_no_prompt_stands_on_both_sides_now_or_later(
    seed: int, openings: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    names = rng.integers(0, 2**63, openings, dtype=np.uint64)
    all_openings: list[np.ndarray] = []
    all_held: list[np.ndarray] = []
    for _ in range(4):
        rows = int(rng.integers(1, 200))
        mine = names[rng.integers(0, openings, rows)]
        earlier = EarlierSplit.of(
            np.concatenate([np.zeros(0, np.uint64), *all_openings]),
            np.concatenate([np.zeros(0, bool), *all_held]),
        )
        held = split(mine, rng.random(rows) < 0.5, earlier, rows=1000, share=share)
        all_openings.append(mine)
        all_held.append(held)
        openings_so_far, held_so_far = np.concatenate(all_openings), np.concatenate(all_held)
        both = np.intersect1d(openings_so_far[held_so_far], openings_so_far[~held_so_far])
        assert both.size == 0
