"""Groups of sequences: every token is there once, and padding costs less than what it saves."""

from __future__ import annotations

from random import Random

import pytest
import torch

from alignment.fastpath.groups import Layout, _alike, group_cost, of_padded, of_rows
from alignment.models.row_layout import Row

ROWS = [
    Row((7, 8, 9), ((1, 2), (3, 4, 5)), (0, 1)),
    Row((), ((6, 6, 6, 6),), (2,)),
    Row((5,), ((4,), (3, 2)), (3, 4)),
]


def read(layout: Layout, last: int) -> list[int]:
    """The answer that ends at a place, behind its prefix."""
    for group in layout.groups:
        if group.first <= last < group.end:
            number, place = divmod(last - group.first, group.longest)
            own = layout.ids[last - place : last + 1].tolist()
            found = layout.ids[group.before(number)].tolist() + own
            seen = layout.positions[last - place : last + 1].tolist()
            assert seen == list(range(len(found) - len(own), len(found)))
            assert place == group.lengths[number] - 1
            return found
    raise AssertionError(last)


def test_every_answer_is_found_behind_its_prefix() -> None:
    layout = of_rows(ROWS, width=8)
    answers = [list(row.prefix + tail) for row in ROWS for tail in row.tails]
    assert [read(layout, int(last)) for last in layout.last] == answers
    prefixes = [row.prefix for row in ROWS if row.prefix]
    places = {place for group in layout.groups for place in group.prefixes if place[1]}
    assert len(places) == len(prefixes)  # each is there once
    assert layout.groups[-1].end == len(layout.ids) == len(layout.positions)


def test_padding_takes_no_sequence_beyond_its_length() -> None:
    """A long tail beside a long prefix: padded, each is as long as both together."""
    rows = [
        Row(tuple(range(40)), (tuple(range(9)), tuple(range(10))), (0, 1)),
        Row((1,), (tuple(range(12)), tuple(range(11))), (2, 3)),
    ]
    layout = of_rows(rows, width=8)
    assert max(group.shared + group.longest for group in layout.groups) == 52
    assert max(group.farthest for group in layout.groups) == 50
    assert int(layout.positions.max()) == 49


def test_padded_rows_are_one_group() -> None:
    layout = of_padded(torch.tensor([[1, 2, 3], [4, 5, 6]]))
    assert layout.ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert layout.positions.tolist() == [0, 1, 2, 0, 1, 2]
    assert layout.last.tolist() == [2, 5]
    assert [(group.longest, group.shared) for group in layout.groups] == [(3, 0)]


@pytest.mark.parametrize("seed", range(5))
def test_no_other_cut_of_the_sorted_sequences_costs_less(seed: int) -> None:
    random = Random(seed)
    sizes = [(random.randrange(1, 200), random.choice((0, 5, 90))) for _ in range(9)]
    width = 128

    def cost(groups: list[list[int]]) -> int:
        total = 0
        for group in groups:
            longest, shared = (max(sizes[n][part] for n in group) for part in (0, 1))
            total += len(group) * longest * (4 * width + shared + longest) + group_cost(width)
        return total

    order = sorted(range(9), key=lambda n: sizes[n])
    every = []
    for cuts in range(2**8):
        groups = [[order[0]]]
        for place, number in enumerate(order[1:]):
            if cuts >> place & 1:
                groups.append([number])
            else:
                groups[-1].append(number)
        every.append(cost(groups))
    found = _alike(sizes, width)
    assert sorted(n for group in found for n in group) == list(range(9))
    assert cost(found) == min(every)
