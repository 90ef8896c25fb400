"""Scoring with small Llama-shaped reward models on a CPU: `models.lean` layers, attention by group.

Tokens of a forward pass stand in one flat list, so that products run over no padding. Attention
takes the answers of one prompt together: tails of like length make a group, whose keys are the
common prefix and their own tokens. In the last layer only the scored tokens ask.

Notation: B tails of a group, P prefix tokens, L tokens of its longest tail, K key heads, G query
heads to each, D width; c queries a block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignment.models.lean import Lean, Rotations, why_not
from alignment.models.load import scalar_head
from alignment.rewards.layout import Row

CHUNK = 2048
"""Tokens of a forward pass: a layer's values stay in the processor's cache."""
_BLOCK = 32
_WASTE = 0.2  # of a group's tokens may be padding
# Sums of exponentials between these have neither overflown nor lost what matters.
_LEAST, _MOST = 1e-30, 1e30


@dataclass(frozen=True)
class Group:
    """Tails that attend in one product; a prefix is a group of one, without a prefix of its own.

    Attributes:
        prefix: where the common prefix begins in the flat list, and where it ends.
        index: [B, L] places of the tails' tokens; a short tail repeats its last place.
        lengths: [B] tokens of each.
        first: place of the first token if the tails are equally long, else -1 (they always follow
            one another).
    """

    prefix: tuple[int, int]
    index: Tensor
    lengths: Tensor
    first: int

    @property
    def last(self) -> Tensor:
        """[B] place of each tail's last token."""
        return self.index[:, -1]

    @property
    def real(self) -> Tensor:
        """[B, L] where a token stands and no padding."""
        return torch.arange(self.index.shape[1]) < self.lengths[:, None]

    def take(self, x: Tensor) -> Tensor:
        """[B, L, ...] out of [N, ...]."""
        if self.first >= 0:
            return x[self.first : self.first + self.index.numel()].unflatten(0, self.index.shape)
        return x[self.index]

    def put(self, x: Tensor, found: Tensor) -> None:
        """Write [B, L, ...] into [N, ...]; what stands at padding is dropped."""
        if self.first >= 0:
            x[self.first : self.first + self.index.numel()] = found.flatten(0, 1)
        else:
            x[self.index[self.real]] = found[self.real]


class _Keys:
    """What a group's queries see: `keys` [B·K, D, P + L] and `values` [B·K, D + 1, P + L].

    The last row of the values is 1 and adds up the weights. With `real_only` padding has no value
    and no weight; else causal queries of real tokens do not see it.
    """

    def __init__(self, group: Group, keys: Tensor, values: Tensor, *, real_only: bool = False):
        rows, own = group.index.shape
        self.shared = group.prefix[1] - group.prefix[0]
        heads, width = keys.shape[1:]
        length = self.shared + own
        self.keys = keys.new_empty((rows, heads, width, length))
        self.values = values.new_empty((rows, heads, width + 1, length))
        self.values[:, :, -1] = 1.0
        for target, source in ((self.keys, keys), (self.values[:, :, :-1], values)):
            prefix = source[group.prefix[0] : group.prefix[1]].permute(1, 2, 0)
            target[..., : self.shared] = prefix
            target[..., self.shared :] = group.take(source).permute(0, 2, 3, 1)
        if real_only and group.first < 0:
            self.values[..., self.shared :] *= group.real[:, None, None]
        self.keys, self.values = self.keys.flatten(0, 1), self.values.flatten(0, 1)


class LeanScorer:
    """Scores of packed rows; see the module. Weights are copied: make one for every use."""

    def __init__(self, model: Any, longest: int):
        self._lean = Lean(model)
        self._head = scalar_head(model)
        self._turns = Rotations(model, longest)
        self._future = torch.full((_BLOCK, _BLOCK), -math.inf).triu(1)

    @classmethod
    def of(cls, model: Any, longest: int) -> LeanScorer | None:
        """A scorer for answers of at most `longest` tokens, prompt included; `None` where
        transformers' own forward has to serve."""
        if why_not(model) is not None or not Lean.folds(model):
            return None
        return cls(model, longest)

    def score(self, rows: Sequence[Row]) -> tuple[Tensor, list[int]]:
        """The head's output [A] at each answer's last token, and the answers' numbers."""
        ids, positions, prefixes, tails, answers = _lay_out(rows)
        hidden = self._lean.embed(torch.tensor(ids))
        turn = self._turns[torch.tensor(positions)]
        for layer in self._lean.layers[:-1]:
            queries, keys, values = layer.project(hidden, turn)
            attended = torch.empty_like(queries)
            for group in (*prefixes, *tails):
                seen = _Keys(group, keys, values)
                group.put(attended, self._attend(group.take(queries), seen))
            hidden = layer.finish(hidden, attended.flatten(1))
        layer = self._lean.layers[-1]
        queries, keys, values = layer.project(hidden, turn)
        found = []
        for group in tails:
            seen = _Keys(group, keys, values, real_only=True)
            found.append(self._block(queries[group.last][:, None], seen, None)[:, 0])
        last = torch.cat([group.last for group in tails])
        hidden = layer.finish(hidden[last], torch.cat(found).flatten(1))
        return self._head(self._lean.norm(hidden))[:, 0], answers

    def _attend(self, asked: Tensor, seen: _Keys) -> Tensor:
        """Causal attention of [B, L, K·G, D] over prefix and tail; the same shape."""
        found = asked.new_empty(asked.shape)
        for start in range(0, asked.shape[1], _BLOCK):
            block = asked[:, start : start + _BLOCK]
            found[:, start : start + _BLOCK] = self._block(block, seen, start)
        return found

    def _block(self, asked: Tensor, seen: _Keys, start: int | None) -> Tensor:
        """[B, c, K·G, D] of a block of queries, the first of which is token `start` of its tail;
        `None` lets them see everything."""
        rows, size, heads, width = asked.shape
        kv = seen.keys.shape[0] // rows
        groups = heads // kv
        end = seen.keys.shape[-1] if start is None else seen.shared + start + size
        keys, values = seen.keys[..., :end], seen.values[..., :end]
        queries = asked.unflatten(2, (kv, groups)).permute(0, 2, 3, 1, 4)
        queries = queries.reshape(rows * kv, groups * size, width)

        def scores() -> Tensor:
            found = torch.bmm(queries, keys)
            if start is not None and size > 1:
                own = found.view(rows * kv, groups, size, end)[..., end - size :]
                own += self._future[:size, :size]
            return found

        # Without the largest score taken off first: two passes less over the scores.
        found = torch.bmm(values, scores().exp2_().transpose(1, 2))
        low, high = torch.aminmax(found[:, -1])
        if not (float(low) > _LEAST and float(high) < _MOST):
            found = torch.bmm(values, _softmax(scores()).transpose(1, 2))
        found = found[:, :-1] / found[:, -1:]
        return found.view(rows, kv, width, groups, size).permute(0, 4, 1, 3, 2).flatten(2, 3)


def _softmax(scores: Tensor) -> Tensor:
    """Of scores in units of log 2."""
    return torch.softmax(scores * math.log(2), dim=-1)


def _lay_out(
    rows: Sequence[Row],
) -> tuple[list[int], list[int], list[Group], list[Group], list[int]]:
    """Ids and positions of the flat list, its prefixes and groups of tails, and whose they are."""
    ids: list[int] = []
    positions: list[int] = []
    prefixes, tails, answers = [], [], []
    for row in _gathered(rows):
        begin = len(ids)
        shared = begin + len(row.prefix)
        ids += row.prefix
        positions += range(len(row.prefix))
        if row.prefix:
            prefixes.append(_group((begin, begin), begin, [len(row.prefix)]))
        first = shared
        for lengths in _alike([len(tail) for tail in row.tails]):
            tails.append(_group((begin, shared), first, lengths))
            first += sum(lengths)
        for tail, answer in zip(row.tails, row.answers, strict=True):
            ids += tail
            positions += range(len(row.prefix), len(row.prefix) + len(tail))
            answers.append(answer)
    return ids, positions, prefixes, tails, answers


def _gathered(rows: Sequence[Row]) -> list[Row]:
    """All answers that share no prefix as one row: they attend side by side too."""
    shared = [row for row in rows if row.prefix]
    bare = [
        pair for row in rows if not row.prefix for pair in zip(row.tails, row.answers, strict=True)
    ]
    if bare:
        tails, answers = zip(*sorted(bare, key=lambda pair: len(pair[0])), strict=True)
        shared.append(Row((), tails, answers))
    return shared


def _alike(lengths: list[int]) -> list[list[int]]:
    """Neighbours of like length together: little padding in each group."""
    groups: list[list[int]] = []
    for length in lengths:
        if groups:
            grown = [*groups[-1], length]
            if max(grown) * len(grown) * (1 - _WASTE) <= sum(grown):
                groups[-1] = grown
                continue
        groups.append([length])
    return groups


def _group(prefix: tuple[int, int], first: int, lengths: list[int]) -> Group:
    sizes = torch.tensor(lengths)
    begin = first + sizes.cumsum(0) - sizes
    places = torch.arange(max(lengths)).expand(len(lengths), -1)
    index = begin[:, None] + torch.minimum(places, sizes[:, None] - 1)
    return Group(prefix, index, sizes, first if min(lengths) == max(lengths) else -1)
