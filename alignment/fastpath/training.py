"""Small Llamas on a CPU, forward and backward by hand: the fast path of training.

With a few hundred thousand parameters the matrix products take a third of a training step's time;
attention kernels made for wide heads and elementwise passes take the rest. So here

* products run through whichever of oneDNN and MKL is faster here (`feature_major.Product`);
* activations are [features, tokens], so that every pass runs over long rows, and rotary embedding
  writes queries and keys where attention reads them;
* norm weights and the scaling of the scores are folded into the projections;
* queries are processed in blocks, each with the keys up to its end, so that less is masked;
* weights are exp2 of the scores without subtracting the largest, unless a sum is out of range; a
  row of ones below the values sums them in the same product.

The mathematics is the same, the rounding differs. `why_not` says why a model is not covered.

Notation: d width, f inner width, H query heads, K key heads, D width of a head, b sequences of s
tokens, N = b·s tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from alignment.fastpath import feature_major
from alignment.fastpath.choice import SMALL
from alignment.fastpath.feature_major import Product, in_range, product_of, turn
from alignment.fastpath.groups import Group, Layout, of_padded
from alignment.fastpath.layers import LOG2E, Rotations
from alignment.fastpath.layers import why_not as why_not_lean

# Attention weights are kept: longer sequences would cost memory.
LONGEST = 512
# Queries of a block: more save more masked scores, fewer make larger products.
_BLOCK = 128


def why_not(model: Any) -> str | None:
    """The reason why this model needs transformers' own forward in training, or `None`.

    Args:
        model: a decoder, with or without a head.
    """
    reason = why_not_lean(model)
    if reason is not None:
        return reason
    first = next(model.parameters())
    if first.device.type != "cpu" or first.dtype != torch.float32:
        return "not in float32 on a CPU"
    if sum(parameter.numel() for parameter in model.parameters()) >= SMALL:
        return "a large model"
    if getattr(model.config, "hidden_act", None) != "silu":
        return "another activation than SiLU"
    if any(n.endswith("_proj") and m.bias is not None for n, m in model.named_modules()):
        return "biases in its projections"
    return None


@dataclass(frozen=True)
class _Shape:
    """Sizes of heads, and what a pass needs of its layout: rotary tables [D/2, N] and groups."""

    heads: int
    kv: int
    dim: int
    cos: Tensor
    sin: Tensor
    groups: tuple[Group, ...]
    product: Product


class LeanBackbone:
    """The layers of a model whose weights change between calls.

    Args:
        body: a decoder without its head, to which `why_not` has no objection; its parameters are
            used as they are at each call.
        product: how matrices are multiplied.
    """

    def __init__(self, body: Any, product: Product = product_of):
        config = body.config
        self._body = body
        self._product = product
        self._heads = int(config.num_attention_heads)
        self._kv = int(config.num_key_value_heads)
        self._dim = int(getattr(config, "head_dim", None) or config.hidden_size // self._heads)
        self._turns: Rotations | None = None

    def hidden(self, ids: Tensor, places: Tensor) -> Tensor | None:
        """Last hidden states, after the final norm, at chosen places; None where sequences are so
        long that the model's own forward has to serve.

        Args:
            ids: (b, s) padded on the right.
            places: (n,) places in the flattened ids.

        Returns:
            (n, d), with a gradient where that is enabled.
        """
        return self.hidden_of(of_padded(ids), places)

    def hidden_of(self, layout: Layout, places: Tensor) -> Tensor | None:
        """The same for any layout of tokens; `places` among its N."""
        if max(group.shared + group.longest for group in layout.groups) > LONGEST:
            return None
        return self._hidden(layout, places)

    def _hidden(self, layout: Layout, places: Tensor) -> Tensor:
        cos, sin = self._tables(layout.positions)
        shape = _Shape(self._heads, self._kv, self._dim, cos, sin, layout.groups, self._product)
        base = self._body
        x = base.embed_tokens(layout.ids).t().contiguous()
        for layer in base.layers[:-1]:
            x = _inner(_attention(x, layer, shape), layer, self._product)
        # Behind the last attention only the chosen places count.
        chosen = _attention(x, base.layers[-1], shape)[:, places]
        x = _inner(chosen, base.layers[-1], self._product)
        normed: Tensor = _Norm.apply(x, base.norm.variance_epsilon)  # type: ignore[no-untyped-call]
        return (normed * base.norm.weight[:, None]).t()

    def token_logprobs(
        self, hidden: Tensor, head: Tensor, tokens: Tensor, temperature: float
    ) -> Tensor:
        """log softmax(head · hidden / temperature) of tokens (n,), from hidden (n, d) and head
        (v, d)."""
        log_probs: Tensor = TokenLogprobs.apply(  # type: ignore[no-untyped-call]
            hidden, head, tokens, temperature, self._product
        )
        return log_probs

    def _tables(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [D/2, N]."""
        if self._turns is None:
            with torch.inference_mode(False), torch.no_grad():
                self._turns = Rotations(SimpleNamespace(model=self._body), LONGEST)
        return self._turns.cos.t()[:, positions], self._turns.sin.t()[:, positions]


def _attention(x: Tensor, layer: Any, shape: _Shape) -> Tensor:
    """First half of a layer: [d, N] → [d, N]."""
    attention, norm = layer.self_attn, layer.input_layernorm
    projections = _folded(
        norm.weight,
        [
            (attention.q_proj.weight, float(attention.scaling) * LOG2E),
            (attention.k_proj.weight, 1.0),
            (attention.v_proj.weight, 1.0),
        ],
    )
    out = attention.o_proj.weight
    output: Tensor = _Attention.apply(x, projections, out, norm.variance_epsilon, shape)  # type: ignore[no-untyped-call]
    return output


def _inner(h: Tensor, layer: Any, product: Product) -> Tensor:
    """Second half of a layer: [d, N] → [d, N]."""
    mlp, norm = layer.mlp, layer.post_attention_layernorm
    both = _folded(norm.weight, [(mlp.gate_proj.weight, 1.0), (mlp.up_proj.weight, 1.0)])
    output: Tensor = _Inner.apply(  # type: ignore[no-untyped-call]
        h, both, mlp.down_proj.weight, norm.variance_epsilon, product
    )
    return output


def _folded(gain: Tensor, parts: list[tuple[nn.Parameter, float]]) -> Tensor:
    """Projections of the same normed input as one, with the norm's weight in it."""
    weights = [weight if factor == 1.0 else weight * factor for weight, factor in parts]
    return torch.cat(weights) * gain


def _normed_back(grad: Tensor, normed: Tensor, factor: Tensor) -> Tensor:
    """Gradient before the norm, from the one after it."""
    along = (grad * normed).sum(0).mul_(-1.0 / len(grad))
    return torch.addcmul(grad, normed, along).mul_(factor)


class _Norm(torch.autograd.Function):
    """`feature_major.normed`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, epsilon: float) -> Tensor:
        normed, factor = feature_major.normed(x, epsilon)
        ctx.save_for_backward(normed, factor)
        return normed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _normed_back(grad, *ctx.saved_tensors), None


class _Inner(torch.autograd.Function):
    """h + down(silu(gate) · up) of the normed h."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, inner: Tensor, down: Tensor, epsilon: float, product: Product
    ) -> Tensor:
        normed, factor = feature_major.normed(h, epsilon)
        both = product(inner, normed)
        gate, up = both.chunk(2)
        active = torch.nn.functional.silu(gate)
        passed = active * up
        ctx.product = product
        ctx.save_for_backward(inner, down, normed, factor, both, active, passed)
        return product(down, passed).add_(h)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        inner, down, normed, factor, both, active, passed = ctx.saved_tensors
        product: Product = ctx.product
        gate, up = both.chunk(2)
        back = product(down.t(), grad)
        both_back = torch.empty_like(both)
        gate_back, up_back = both_back.chunk(2)
        torch.mul(back, active, out=up_back)
        torch.ops.aten.silu_backward.grad_input(back.mul_(up), gate, grad_input=gate_back)
        gradient = _normed_back(product(inner.t(), both_back), normed, factor).add_(grad)
        return gradient, product(both_back, normed.t()), product(grad, passed.t()), None, None


class _Attention(torch.autograd.Function):
    """x + out(attention) of the normed x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, projections: Tensor, out: Tensor, epsilon: float, shape: _Shape
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
        shape: _Shape = ctx.shape
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
        gradient = _normed_back(normed_back, normed, factor).add_(grad)
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


def _apart(flat: Tensor, group: Group, shape: _Shape) -> Tensor:
    """View of a group in [H·n, N] or [H, n, N], for any n, as [K, B, n, G, L]."""
    whole = flat.view(shape.kv, shape.heads // shape.kv, -1, flat.shape[-1])
    return group.own(whole).permute(0, 3, 2, 1, 4)


def _of_block(flat: Tensor, group: Group, shape: _Shape, start: int, end: int) -> Tensor:
    """Queries [start, end) of a group out of [H, n, N]: [K·B, n, G·c]."""
    block = _apart(flat, group, shape)[..., start:end]
    return block.reshape(shape.kv * len(group.lengths), block.shape[2], -1)


def _turned(projected: Tensor, shape: _Shape) -> tuple[Tensor, Tensor]:
    """Turned queries [H, D, N]; turned keys, values and a row of ones [K, 2·D + 1, N]."""
    heads, kv, dim = shape.heads, shape.kv, shape.dim
    q, k, v = projected.view(heads + 2 * kv, dim, -1).split((heads, kv, kv))
    queries, memory = torch.empty(q.shape), torch.empty(kv, 2 * dim + 1, q.shape[-1])
    turn(_halves(q), _halves(queries), shape.cos, shape.sin, dim=1)
    turn(_halves(k), _halves(memory[:, :dim]), shape.cos, shape.sin, dim=1)
    memory[:, dim:-1] = v
    memory[:, -1] = 1.0
    return queries, memory


def _turned_back(queries: Tensor, memory: Tensor, shape: _Shape) -> Tensor:
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


def _memory_of(group: Group, memory: Tensor, shape: _Shape) -> tuple[Tensor, Tensor]:
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


def _add_memory(flat: Tensor, group: Group, own: Tensor, shape: _Shape) -> None:
    """Add the gradient of what a group's queries see, [K·B, 2·D, P + L], to [K, 2·D, N]."""
    seen = own.unflatten(0, (shape.kv, -1))
    group.own(flat).add_(seen[..., group.shared :].transpose(1, 2))
    if group.shared:
        for number in range(len(group.lengths)):
            place = group.before(number)
            flat[..., place] += seen[:, number, :, : place.stop - place.start]


class TokenLogprobs(torch.autograd.Function):
    """log softmax(head · hidden / temperature) of given tokens, without a second copy of logits.

    Args:
        hidden: (n, d).
        head: (v, d).
        tokens: (n,) int64.
        product: how matrices are multiplied.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        head: Tensor,
        tokens: Tensor,
        temperature: float,
        product: Product = product_of,
    ) -> Tensor:
        scaled = head * (LOG2E / temperature)
        logits = product(scaled, hidden.t())
        chosen = logits.gather(0, tokens[None])[0]
        weights = logits.exp2_()
        total = weights.sum(0)
        if not in_range(total):
            logits = product(scaled, hidden.t())
            highest = logits.amax(0)
            weights = logits.sub_(highest).exp2_()
            total = weights.sum(0)
            chosen = chosen - highest
        ctx.temperature, ctx.product = temperature, product
        ctx.save_for_backward(hidden, head, tokens, weights, total)
        return (chosen - total.log2()).div_(LOG2E)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        hidden, head, tokens, weights, total = ctx.saved_tensors
        product: Product = ctx.product
        grad = grad / ctx.temperature
        # In place: the graph is used once.
        back = weights.mul_(-grad / total)
        back.scatter_add_(0, tokens[None], grad[None])
        return product(head.t(), back).t(), product(back, hidden), None, None, None
