"""Half a layer with attention over groups of sequences, forward and backward by hand.

Queries, keys and values are [heads, D, N] over all N tokens. For each group they are gathered with
what comes before, and its queries are processed in blocks, each with the keys up to its end, so
that less is masked. Weights are exp2 of the scores without subtracting the largest, unless a sum is
out of range; a row of ones below the values sums them in the same product.

Notation: H query heads, K key heads, G = H/K, D width of a head, N tokens, B, L and P as in
`groups`; c queries and n keys of a block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from alignment.fastpath import feature_major
from alignment.fastpath.feature_major import Product, in_range, turn
from alignment.fastpath.groups import Group
from alignment.fastpath.layers import LOG2E

# Queries of a block: more save more masked scores, fewer make larger products.
_BLOCK = 128


@dataclass(frozen=True)
class Shape:
    """Sizes of heads, and what a pass needs of its layout: rotary tables [D/2, N] and groups."""

    heads: int
    kv: int
    dim: int
    cos: Tensor
    sin: Tensor
    groups: tuple[Group, ...]
    product: Product


class GroupedAttention(torch.autograd.Function):
    """x + out(attention) of the normed x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, projections: Tensor, out: Tensor, epsilon: float, shape: Shape
    ) -> Tensor:
        normed, factor = feature_major.normed(x, epsilon)
        projected = shape.product(projections, normed)
        queries, memory = _turned(projected, shape)
        attended = torch.empty(shape.heads * shape.dim, x.shape[1])
        inverse = torch.empty(shape.heads, 1, x.shape[1])
        saved = []
        for group in shape.groups:
            keys, values = _memory_of(group, memory, shape)
            saved += [keys, values]
            for start, end in _blocks(group.longest):
                asking = _of_block(queries, group, shape, start, end)
                weights, sums = _weighed(asking, keys, values, group, start, end)
                output = sums.view(shape.kv, len(group.lengths), shape.dim + 1, -1, end - start)
                below = _apart(inverse, group, shape)[..., start:end]
                torch.reciprocal(output[:, :, -1:], out=below)
                target = _apart(attended, group, shape)[..., start:end]
                torch.mul(output[:, :, :-1], below, out=target)
                saved += [asking, weights]
        ctx.shape = shape
        ctx.save_for_backward(projections, out, normed, factor, attended, inverse, *saved)
        return shape.product(out, attended).add_(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        projections, out, normed, factor, attended, inverse, *saved = ctx.saved_tensors
        shape: Shape = ctx.shape
        left = iter(saved)
        # Of a quotient n/t: 1/t above, and −(n/t)/t below, summed over the head.
        above = shape.product(out.t(), grad).view(shape.heads, shape.dim, -1)
        back = torch.empty(shape.heads, shape.dim + 1, grad.shape[1])
        torch.mul(above, inverse, out=back[:, :-1])
        along = back[:, :-1] * attended.view(above.shape)
        torch.sum(along, 1, keepdim=True, out=back[:, -1:]).neg_()
        queries_back = torch.empty(shape.heads, shape.dim, grad.shape[1])
        memory_back = torch.zeros(shape.kv, 2 * shape.dim, grad.shape[1])
        for group in shape.groups:
            keys, values = next(left), next(left)
            own_back = keys.new_zeros(len(keys), 2 * shape.dim, keys.shape[-1])
            keys_back, values_back = own_back[:, : shape.dim], own_back[:, shape.dim :]
            for start, end in _blocks(group.longest):
                asking, weights = next(left), next(left)
                until = group.shared + end
                block_back = _of_block(back, group, shape, start, end)
                scores_back = torch.bmm(values[..., :until].transpose(1, 2), block_back)
                scores_back.mul_(weights)
                values_back[..., :until] += torch.bmm(block_back[:, :-1], weights.transpose(1, 2))
                keys_back[..., :until] += torch.bmm(asking, scores_back.transpose(1, 2))
                asked = torch.bmm(keys[..., :until], scores_back)
                target = _apart(queries_back, group, shape)[..., start:end]
                target.copy_(asked.view(target.shape))
            _add_memory(memory_back, group, own_back, shape)
        projected_back = _turned_back(queries_back, memory_back, shape)
        normed_back = shape.product(projections.t(), projected_back)
        gradient = feature_major.normed_back(normed_back, normed, factor).add_(grad)
        weight_back = shape.product(projected_back, normed.t())
        return gradient, weight_back, shape.product(grad, attended.t()), None, None


def _blocks(length: int) -> list[tuple[int, int]]:
    """Queries [start, end) of blocks of like size."""
    count = math.ceil(length / _BLOCK)
    return list(pairwise(length * number // count for number in range(count + 1)))


@cache
def _triangle() -> Tensor:
    """(c, 1, c) of a whole block: 1 where a key does not come after the query."""
    with torch.inference_mode(False):
        return torch.ones(_BLOCK, _BLOCK).triu()[:, None]


def _weighed(
    asking: Tensor, keys: Tensor, values: Tensor, group: Group, start: int, end: int
) -> tuple[Tensor, Tensor]:
    """Of a block of queries the attention weights [K·B, n, G·c], and their sums of values with the
    sums of weights below [K·B, D + 1, G·c]."""
    until, size = group.shared + end, end - start
    keys, values = keys[..., :until], values[..., :until]
    seen = _triangle()[:size, :, :size]

    def own(scores: Tensor) -> Tensor:
        return scores[:, group.shared + start :].unflatten(-1, (-1, size))

    # The largest score is not subtracted first, which saves two passes over the scores.
    weights = torch.bmm(keys.transpose(1, 2), asking).exp2_()
    own(weights).mul_(seen)
    sums = torch.bmm(values, weights)
    if in_range(sums[:, -1]):
        return weights, sums
    scores = torch.bmm(keys.transpose(1, 2), asking)
    own(scores).masked_fill_(seen == 0, -math.inf)
    scores.masked_fill_(values[:, -1, :, None] == 0, -math.inf)
    weights = scores.sub_(scores.amax(1, keepdim=True)).exp2_()
    return weights, torch.bmm(values, weights)


def _apart(flat: Tensor, group: Group, shape: Shape) -> Tensor:
    """View of a group in [H·n, N] or [H, n, N], for any n, as [K, B, n, G, L]."""
    whole = flat.view(shape.kv, shape.heads // shape.kv, -1, flat.shape[-1])
    return group.own(whole).permute(0, 3, 2, 1, 4)


def _of_block(flat: Tensor, group: Group, shape: Shape, start: int, end: int) -> Tensor:
    """Queries [start, end) of a group out of [H, n, N]: [K·B, n, G·c]."""
    block = _apart(flat, group, shape)[..., start:end]
    return block.reshape(shape.kv * len(group.lengths), block.shape[2], -1)


def _turned(projected: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Turned queries [H, D, N]; turned keys, values and a row of ones [K, 2·D + 1, N]."""
    heads, kv, dim = shape.heads, shape.kv, shape.dim
    q, k, v = projected.view(heads + 2 * kv, dim, -1).split((heads, kv, kv))
    queries, memory = torch.empty(q.shape), torch.empty(kv, 2 * dim + 1, q.shape[-1])
    turn(_halves(q), _halves(queries), shape.cos, shape.sin, dim=1)
    turn(_halves(k), _halves(memory[:, :dim]), shape.cos, shape.sin, dim=1)
    memory[:, dim:-1] = v
    memory[:, -1] = 1.0
    return queries, memory


def _turned_back(queries: Tensor, memory: Tensor, shape: Shape) -> Tensor:
    """The backward pass of `_turned`: the gradient of `projected`."""
    heads, kv, dim = shape.heads, shape.kv, shape.dim
    back = torch.empty(heads + 2 * kv, dim, queries.shape[-1])
    # Scores are powers of two: their derivative brings ln 2 = 1 / log₂e.
    cos, sin = shape.cos / LOG2E, -shape.sin / LOG2E
    turn(_halves(queries), _halves(back[:heads]), cos, sin, dim=1)
    turn(_halves(memory[:, :dim]), _halves(back[heads : heads + kv]), cos, sin, dim=1)
    back[heads + kv :] = memory[:, dim:]
    return back.flatten(0, 1)


def _halves(heads: Tensor) -> Tensor:
    """View [n, 2, D/2, N] of [n, D, N]."""
    return heads.unflatten(1, (2, -1))


def _memory_of(group: Group, memory: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """What a group's queries see: keys [K·B, D, P + L] and values with ones [K·B, D + 1, P + L].
    Beside a shorter prefix there is nothing, of no weight."""
    size, shared = len(group.lengths), group.shared
    full = shared * size == sum(length for _, length in group.prefixes)
    make = torch.empty if full else torch.zeros
    seen = make(shape.kv, size, memory.shape[1], shared + group.longest)
    seen[..., shared:] = group.own(memory).transpose(1, 2)
    if shared:
        for number in range(size):
            prefix = memory[..., group.before(number)]
            seen[:, number, :, : prefix.shape[-1]] = prefix
    keys, values = seen.flatten(0, 1).split((shape.dim, shape.dim + 1), 1)
    return keys, values


def _add_memory(flat: Tensor, group: Group, own: Tensor, shape: Shape) -> None:
    """Add the gradient of what a group's queries see, [K·B, 2·D, P + L], to [K, 2·D, N]."""
    seen = own.unflatten(0, (shape.kv, -1))
    group.own(flat).add_(seen[..., group.shared :].transpose(1, 2))
    if group.shared:
        for number in range(len(group.lengths)):
            place = group.before(number)
            flat[..., place] += seen[:, number, :, : place.stop - place.start]
