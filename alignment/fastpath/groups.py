"""How answers lie in one list of tokens, and which of them attend in one product.

What answers to one prompt begin with is there once. Sequences of like length form a group: they are
padded to one length and attend together, each to the prefix before it and causally to itself.
Prefixes form groups too.

Notation: N tokens of a pass, B sequences of a group, L tokens of its longest, P of its longest
prefix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignment.models.row_layout import Row

_MOST = 64  # sequences of a group
_GROUP = 128 * 64**2
"""A group's operations cost about as much as so many tokens / width² of the model."""


@dataclass(frozen=True)
class Group:
    """Sequences that attend in one product.

    Attributes:
        first: place of the first sequence's first token.
        lengths: tokens of each; all are padded to the longest.
        prefixes: of each sequence, where its prefix begins and how many tokens it has.
    """

    first: int
    lengths: tuple[int, ...]
    prefixes: tuple[tuple[int, int], ...]

    @property
    def longest(self) -> int:
        """L."""
        return max(self.lengths)

    @property
    def shared(self) -> int:
        """P."""
        return max(length for _, length in self.prefixes)

    @property
    def farthest(self) -> int:
        """Tokens of the longest sequence with its prefix."""
        pairs = zip(self.lengths, self.prefixes, strict=True)
        return max(length + before for length, (_, before) in pairs)

    @property
    def end(self) -> int:
        """The first place after the group."""
        return self.first + len(self.lengths) * self.longest

    def own(self, x: Tensor) -> Tensor:
        """View [..., B, L] of the group's tokens in [..., N]."""
        return x[..., self.first : self.end].unflatten(-1, (len(self.lengths), self.longest))

    def before(self, number: int) -> slice:
        """Where the prefix of a sequence is."""
        start, length = self.prefixes[number]
        return slice(start, start + length)


@dataclass(frozen=True)
class Layout:
    """The tokens of a pass.

    Attributes:
        ids, positions: (N,) int64; padding repeats a sequence's last ones.
        groups: of all sequences, prefixes first.
        last: (A,) place of each answer's last token.
    """

    ids: Tensor
    positions: Tensor
    groups: tuple[Group, ...]
    last: Tensor


def of_padded(ids: Tensor) -> Layout:
    """Of sequences (b, s) padded on the right; `last` is that of the padding."""
    rows, length = ids.shape
    group = Group(0, (length,) * rows, ((0, 0),) * rows)
    last = torch.arange(1, rows + 1) * length - 1
    return Layout(ids.flatten(), torch.arange(length).repeat(rows), (group,), last)


def of_rows(rows: Sequence[Row], width: int) -> Layout:
    """Of answers; `last` in the order of the rows and their tails.

    Args:
        width: of the model: a token's products cost as much as attending to 4 · width others.
    """
    ids: list[int] = []
    positions: list[int] = []
    groups: list[Group] = []
    shared = [n for n, row in enumerate(rows) if row.prefix]
    starts: dict[int, int] = {}

    def put(sequences: list[tuple[int, ...]], prefixes: list[tuple[int, int]]) -> Group:
        group = Group(len(ids), tuple(map(len, sequences)), tuple(prefixes))
        for sequence, (_, before) in zip(sequences, prefixes, strict=True):
            places = range(before, before + len(sequence))
            short = group.longest - len(sequence)
            ids.extend((*sequence, *sequence[-1:] * short))
            positions.extend((*places, *[places[-1]] * short))
        groups.append(group)
        return group

    for numbers in _alike([(len(rows[n].prefix), 0) for n in shared], width):
        members = [shared[n] for n in numbers]
        group = put([rows[n].prefix for n in members], [(0, 0)] * len(members))
        starts |= {n: group.first + i * group.longest for i, n in enumerate(members)}
    tails = [(number, tail) for number, row in enumerate(rows) for tail in row.tails]
    last = torch.zeros(len(tails), dtype=torch.int64)
    sizes = [(len(tail), len(rows[number].prefix)) for number, tail in tails]
    for numbers in _alike(sizes, width):
        prefixes = [(starts.get(tails[n][0], 0), sizes[n][1]) for n in numbers]
        group = put([tails[n][1] for n in numbers], prefixes)
        for i, n in enumerate(numbers):
            last[n] = group.first + i * group.longest + group.lengths[i] - 1
    return Layout(torch.tensor(ids), torch.tensor(positions), tuple(groups), last)


def group_cost(width: int) -> int:
    """What a group costs by itself, in pairs of tokens that attend."""
    return 4 * _GROUP // width


def _alike(sizes: Sequence[tuple[int, int]], width: int) -> list[list[int]]:
    """Numbers of sequences by group, so that padding and the groups themselves cost least; sizes
    are the sequences' lengths and those of their prefixes.

    Groups are neighbours in the order of lengths: the best cut before each is found in turn.
    """
    order = sorted(range(len(sizes)), key=lambda n: sizes[n])
    group = group_cost(width)
    least, cuts = [0], [0]
    for end in range(1, len(order) + 1):
        longest, shared = sizes[order[end - 1]][0], 0
        best, cut = math.inf, end - 1
        for start in range(end - 1, max(-1, end - 1 - _MOST), -1):
            shared = max(shared, sizes[order[start]][1])
            tokens = (end - start) * longest
            cost = least[start] + tokens * (4 * width + shared + longest) + group
            if cost < best:
                best, cut = cost, start
        least.append(int(best))
        cuts.append(cut)
    groups: list[list[int]] = []
    end = len(order)
    while end:
        groups.append(order[cuts[end] : end])
        end = cuts[end]
    return groups[::-1]
