"""Scoring with small Llama-shaped reward models on a CPU: few operations per layer, no gradient.

Activations are [features, tokens], see `feature_major`. Attention handles the answers to one prompt
together: tails of similar length form a group, whose keys are the common prefix and their own
tokens. Answers that share too little form groups across prompts. In the last layer only the scored
tokens have queries.

Notation: N tokens of a pass, B tails of a group, P prefix tokens, L tokens of its longest tail, H
query heads, K key heads, G = H/K, D width of a head, d of the model; c queries a block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import silu

from alignment.fastpath.feature_major import Product, in_range, normed, product_of, turn
from alignment.fastpath.layers import LOG2E, Lean, Rotations, why_not
from alignment.models.load import scalar_head
from alignment.models.row_layout import Row

_BLOCK = 40
_WASTE = 0.2  # of a group's tokens may be padding
# A group costs about as much as so many tokens of a small model.
_GROUP = 64


@dataclass(frozen=True)
class Group:
    """Tails that attend in one product; a prefix is a group of one, without a prefix of its own.

    Attributes:
        prefix: where the common prefix begins in the list of tokens, and where it ends.
        first: place of the first tail's first token; each tail is padded to L.
        lengths: [B] tokens of each tail.
        longest: L.
    """

    prefix: tuple[int, int]
    first: int
    lengths: Tensor
    longest: int

    @property
    def last(self) -> Tensor:
        """[B] place of each tail's last token."""
        return self.first + torch.arange(len(self.lengths)) * self.longest + self.lengths - 1

    def own(self, x: Tensor) -> Tensor:
        """[..., B, L] of the tails' tokens out of [..., N]."""
        end = self.first + len(self.lengths) * self.longest
        return x[..., self.first : end].unflatten(-1, (-1, self.longest))

    def shared(self, x: Tensor) -> Tensor:
        """[..., B, P] of the prefix out of [..., N], the same for every tail."""
        part = x[..., self.prefix[0] : self.prefix[1]].unsqueeze(-2)
        return part.expand(*part.shape[:-2], len(self.lengths), -1)


class _Map:
    """x ↦ W x + b of columns, with factors of W's columns (a norm's weight) in it."""

    def __init__(
        self, product: Product, parts: Sequence[tuple[Any, float]], gain: Tensor | None = None
    ):
        self._product = product
        weight = torch.cat([part.weight * factor for part, factor in parts])
        self._weight = weight if gain is None else weight * gain
        biases = [
            part.weight.new_zeros(len(part.weight)) if part.bias is None else part.bias * factor
            for part, factor in parts
        ]
        bias = torch.cat(biases)
        self._bias = bias[:, None] if bool(bias.any()) else None

    def __call__(self, x: Tensor) -> Tensor:
        product = self._product(self._weight, x)
        return product if self._bias is None else product.add_(self._bias)


class _Layer:
    """A layer's weights: queries are scaled for exp2."""

    def __init__(self, layer: Any, product: Product):
        attention, mlp = layer.self_attn, layer.mlp
        before, after = layer.input_layernorm, layer.post_attention_layernorm
        queries = (attention.q_proj, float(attention.scaling) * LOG2E)
        self._queries_keys_values = _Map(
            product, [queries, (attention.k_proj, 1.0), (attention.v_proj, 1.0)], before.weight
        )
        self._out = _Map(product, [(attention.o_proj, 1.0)])
        self._both = _Map(product, [(mlp.gate_proj, 1.0), (mlp.up_proj, 1.0)], after.weight)
        self._down = _Map(product, [(mlp.down_proj, 1.0)])
        self._epsilons = before.variance_epsilon, after.variance_epsilon

    def project(self, x: Tensor) -> Tensor:
        """Queries, keys and values [(H + 2K)·D, N]."""
        return self._queries_keys_values(normed(x, self._epsilons[0])[0])

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """[d, N] after the layer, from the attention's [H·D, N]."""
        h = self._out(attended).add_(x)
        gate, up = self._both(normed(h, self._epsilons[1])[0]).chunk(2)
        return self._down(silu(gate, inplace=True).mul_(up)).add_(h)


class LeanScorer:
    """Scores of packed rows; see the module. Weights are copied: make one for every use.

    Args:
        longest: tokens of the longest answer that will come, prompt included.
        product: how matrices are multiplied.

    Attributes:
        chunk: tokens of a forward pass: enough for long products, few enough for the processor's
            cache.
    """

    chunk = 4096

    def __init__(self, model: Any, longest: int, product: Product = product_of):
        config = model.config
        self._model = model
        self._heads = int(config.num_attention_heads)
        self._kv = int(config.num_key_value_heads)
        self._layers = [_Layer(layer, product) for layer in model.model.layers]
        self._head = scalar_head(model)
        self._masks: dict[int, Tensor] = {}
        turns = Rotations(model, longest)[torch.arange(longest)]
        self._cos, self._sin = turns.cos.t().contiguous(), turns.sin.t().contiguous()

    @staticmethod
    def covers(model: Any) -> bool:
        """Whether this scorer covers the input; otherwise use transformers' own forward."""
        return why_not(model) is None and Lean.folds(model)

    @staticmethod
    def arranged(rows: Sequence[Row]) -> list[Row]:
        """Rows as they are best cut into passes: none that shares too little, and like lengths
        together."""
        apart = [part for row in rows for part in worth_sharing(row)]
        return sorted(apart, key=lambda row: (bool(row.prefix), 0 if row.prefix else len(row)))

    def score(self, rows: Sequence[Row]) -> tuple[Tensor, list[int]]:
        """The head's output [A] at each answer's last token, and the answers' numbers."""
        ids, positions, prefixes, tails, answers = _lay_out(rows)
        body = self._model.model
        x = body.embed_tokens(torch.tensor(ids)).t().contiguous()
        places = torch.tensor(positions)
        cos, sin = self._cos[:, places], self._sin[:, places]
        for layer in self._layers[:-1]:
            queries, keys, values = self._turned(layer.project(x), cos, sin)
            attended = torch.empty_like(queries).flatten(0, 1)
            for group in (*prefixes, *tails):
                self._attend(queries, _Keys(group, keys, values), attended)
            x = layer.finish(x, attended)
        layer = self._layers[-1]
        queries, keys, values = self._turned(layer.project(x), cos, sin)
        scores = [
            self._last(queries[..., group.last], _Keys(group, keys, values, real_only=True))
            for group in tails
        ]
        x = layer.finish(x[:, torch.cat([group.last for group in tails])], torch.cat(scores, 1))
        x = normed(x, body.norm.variance_epsilon)[0].t() * body.norm.weight
        return self._head(x)[:, 0], answers

    def _turned(self, projected: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        """Turned queries [H, D, N] and keys [K, D, N], and values [K, D, N]."""
        heads = projected.unflatten(0, (self._heads + 2 * self._kv, -1))
        queries = heads[: -self._kv].unflatten(1, (2, -1))
        rotated = torch.empty_like(queries)
        turn(queries, rotated, cos, sin, dim=1)
        rotated = rotated.flatten(1, 2)
        return rotated[: self._heads], rotated[self._heads :], heads[-self._kv :]

    def _attend(self, queries: Tensor, memory: _Keys, attended: Tensor) -> None:
        """Causal attention of a group's tokens, into [H·D, N]."""
        group = memory.group
        own = group.own(queries).unflatten(0, (self._kv, -1)).permute(0, 3, 2, 1, 4)
        target = group.own(attended).unflatten(0, (self._kv, own.shape[3], -1))
        target = target.permute(0, 3, 2, 1, 4)
        for start, end in _blocks(group.longest):
            block = own[..., start:end].flatten(0, 1).flatten(2).contiguous()
            sums = self._sums(block, memory, start, end).view(
                *own.shape[:2], -1, *own.shape[3:4], end - start
            )
            torch.div(sums[:, :, :-1], sums[:, :, -1:], out=target[..., start:end])

    def _last(self, queries: Tensor, memory: _Keys) -> Tensor:
        """Attention of each tail's last token: [H·D, B] from [H, D, B]."""
        tails = queries.shape[-1]
        grouped = queries.unflatten(0, (self._kv, -1)).permute(0, 3, 2, 1)
        sums = self._sums(grouped.flatten(0, 1).contiguous(), memory, 0, None)
        means = (sums[:, :-1] / sums[:, -1:]).view(self._kv, tails, -1, self._heads // self._kv)
        return means.permute(0, 3, 2, 1).reshape(-1, tails)

    def _sums(self, queries: Tensor, memory: _Keys, start: int, end: int | None) -> Tensor:
        """Weighted sums of values, and sums of weights below: [K·B, D + 1, G·c] for queries
        [start, end) of the tails; without an end the queries see everything."""
        until = None if end is None else memory.shared + end
        keys, values = memory.keys[..., :until].transpose(1, 2), memory.values[..., :until]
        # The largest score is not subtracted first, which saves two passes over the scores.
        weights = torch.bmm(keys, queries).exp2_()
        if end is not None:
            visible = self._visible(end - start).repeat(1, queries.shape[-1] // (end - start))
            weights[:, memory.shared + start :].mul_(visible)
        sums = torch.bmm(values, weights)
        if in_range(sums[:, -1]):
            return sums
        scores = torch.bmm(keys, queries)
        if end is not None:
            scores[:, memory.shared + start :].masked_fill_(visible == 0, -math.inf)
        return torch.bmm(values, scores.sub_(scores.amax(1, keepdim=True)).exp2_())

    def _visible(self, size: int) -> Tensor:
        """(c, c): 1 where a key does not come after the query."""
        if size not in self._masks:
            self._masks[size] = torch.ones(size, size).triu()
        return self._masks[size]


class _Keys:
    """What a group's queries see: `keys` [K·B, D, P + L] and `values` [K·B, D + 1, P + L].

    The last row of the values is 1 and adds up the weights. With `real_only` padding has no value
    and no weight; else causal queries of real tokens do not see it.
    """

    def __init__(self, group: Group, keys: Tensor, values: Tensor, *, real_only: bool = False):
        self.group = group
        self.shared = group.prefix[1] - group.prefix[0]
        heads, width, _ = keys.shape
        tails, length = len(group.lengths), self.shared + group.longest
        self.keys = keys.new_empty((heads, tails, width, length))
        self.values = values.new_empty((heads, tails, width + 1, length))
        self.values[:, :, -1] = 1.0
        for target, source in ((self.keys, keys), (self.values[:, :, :-1], values)):
            target[..., : self.shared] = group.shared(source).transpose(1, 2)
            target[..., self.shared :] = group.own(source).transpose(1, 2)
        if real_only and int(group.lengths.min()) < group.longest:
            real = torch.arange(group.longest) < group.lengths[:, None]
            self.values[..., self.shared :] *= real[:, None]
        self.keys, self.values = self.keys.flatten(0, 1), self.values.flatten(0, 1)


def _blocks(length: int) -> Iterator[tuple[int, int]]:
    count = math.ceil(length / _BLOCK)
    for number in range(count):
        yield length * number // count, length * (number + 1) // count


def worth_sharing(row: Row) -> list[Row]:
    """The row, or its answers apart: a group of its own costs more than a short prefix saves."""
    groups = 1 + len(_alike(sorted(map(len, row.tails))))
    if (len(row.tails) - 1) * len(row.prefix) >= _GROUP * groups:
        return [row]
    pairs = zip(row.tails, row.answers, strict=True)
    return [Row((), (row.prefix + tail,), (answer,)) for tail, answer in pairs]


def _lay_out(
    rows: Sequence[Row],
) -> tuple[list[int], list[int], list[Group], list[Group], list[int]]:
    """Ids and positions of the tokens, the prefixes and groups of tails among them, and whose the
    tails are."""
    ids: list[int] = []
    positions: list[int] = []
    prefixes, tails = [], []
    answers: list[int] = []
    for row in _gathered(rows):
        prefix = len(ids), len(ids) + len(row.prefix)
        ids += row.prefix
        positions += range(len(row.prefix))
        if row.prefix:
            prefixes.append(_group((prefix[0], prefix[0]), prefix[0], [len(row.prefix)]))
        number = 0
        for lengths in _alike([len(tail) for tail in row.tails]):
            group = _group(prefix, len(ids), lengths)
            tails.append(group)
            for tail in row.tails[number : number + len(lengths)]:
                ids += tail + tail[-1:] * (group.longest - len(tail))
                positions += range(len(row.prefix), len(row.prefix) + group.longest)
            number += len(lengths)
        answers += row.answers
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
    return Group(prefix, first, torch.tensor(lengths), max(lengths))
