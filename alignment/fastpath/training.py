"""Small Llamas on a CPU, forward and backward by hand: the fast path of training.

With a few hundred thousand parameters the matrix products take a third of a training step's time;
attention kernels made for wide heads and elementwise passes take the rest. So here

* products run through whichever of oneDNN and MKL is faster here (`feature_major.Product`);
* activations are [features, tokens], so that every pass runs over long rows, and rotary embedding
  writes queries and keys where attention reads them;
* norm weights and the scaling of the scores are folded into the projections;
* queries are processed in blocks, each with the keys up to its end, so that less is masked;
* weights are exp2 of the scores without subtracting the largest; a row of ones below the values
  sums them in the same product. If a sum is out of range, transformers' own forward is used.

The mathematics is the same, the rounding differs. `why_not` says why a model is not covered.

Notation: d width, f inner width, H query heads, K key heads, D width of a head, b sequences of s
tokens, N = b·s tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from alignment.fastpath import feature_major
from alignment.fastpath.choice import SMALL
from alignment.fastpath.feature_major import Product, in_range, product_of, turn
from alignment.fastpath.layers import LOG2E, Rotations
from alignment.fastpath.layers import why_not as why_not_lean

# Attention weights are kept: longer sequences would cost memory.
_LONGEST = 512
# Queries of a block: more save more masked scores, fewer make larger products.
_BLOCK = 32


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


class _OutOfRange(Exception):
    """Attention scores too large or too small for this path."""


@dataclass(frozen=True)
class _Block:
    """Queries [start, end) and which of the keys there they see: [c, G·c]."""

    start: int
    end: int
    seen: Tensor


@dataclass(frozen=True)
class _Tables:
    """What depends on the length alone: rotary tables [D/2, s] and the blocks of queries."""

    cos: Tensor
    sin: Tensor
    blocks: tuple[_Block, ...]


@dataclass(frozen=True)
class _Shape:
    """Sizes of a batch."""

    heads: int
    kv: int
    dim: int
    rows: int
    length: int
    tables: _Tables
    product: Product

    @property
    def groups(self) -> int:
        """G, query heads to a key head."""
        return self.heads // self.kv


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
        self._tables: dict[int, _Tables] = {}

    def hidden(self, ids: Tensor, places: Tensor) -> Tensor | None:
        """Last hidden states, after the final norm, at chosen places; None where the model's own
        forward has to serve, for sequences too long or attention scores out of range.

        Args:
            ids: (b, s) padded on the right.
            places: (n,) places in the flattened ids.

        Returns:
            (n, d), with a gradient where that is enabled.
        """
        if ids.shape[1] > _LONGEST:
            return None
        try:
            return self._hidden(ids, places)
        except _OutOfRange:
            return None

    def _hidden(self, ids: Tensor, places: Tensor) -> Tensor:
        rows, length = ids.shape
        tables = self._made(length)
        shape = _Shape(self._heads, self._kv, self._dim, rows, length, tables, self._product)
        base = self._body
        x = base.embed_tokens(ids.flatten()).t().contiguous()
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

    def _made(self, length: int) -> _Tables:
        if length not in self._tables:
            with torch.inference_mode(False), torch.no_grad():
                turn = Rotations(SimpleNamespace(model=self._body), length)[torch.arange(length)]
                count = math.ceil(length / _BLOCK)
                edges = [length * i // count for i in range(count + 1)]
                blocks = tuple(
                    _Block(i, j, torch.ones(j - i, j - i).triu().repeat(1, self._heads // self._kv))
                    for i, j in pairwise(edges)
                )
                cos, sin = turn.cos.t().contiguous(), turn.sin.t().contiguous()
                self._tables[length] = _Tables(cos, sin, blocks)
        return self._tables[length]


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
        keys, values = _keys_and_values(projected, shape)
        attended = torch.empty(shape.heads * shape.dim, x.shape[1])
        inverse = torch.empty(shape.heads, 1, x.shape[1])
        saved = []
        for block in shape.tables.blocks:
            queries = _queries(projected, shape, block)
            weights = torch.bmm(keys[..., : block.end].transpose(1, 2), queries).exp2_()
            weights[:, block.start :].mul_(block.seen)
            sums = torch.bmm(values[..., : block.end], weights)
            output = sums.view(shape.kv, shape.rows, shape.dim + 1, shape.groups, -1)
            below = _apart(inverse, shape, block)
            torch.reciprocal(output[:, :, -1:], out=below)
            torch.mul(output[:, :, :-1], below, out=_apart(attended, shape, block))
            saved += [queries, weights]
        if not in_range(inverse):
            raise _OutOfRange
        ctx.shape = shape
        ctx.save_for_backward(
            projections, out, normed, factor, keys, values, attended, inverse, *saved
        )
        return shape.product(out, attended).add_(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        projections, out, normed, factor, keys, values, attended, inverse, *saved = (
            ctx.saved_tensors
        )
        shape: _Shape = ctx.shape
        # Of a quotient n/t: 1/t above, and −(n/t)/t below, summed over the head.
        above = shape.product(out.t(), grad).view(shape.heads, shape.dim, -1)
        back = torch.empty(shape.heads, shape.dim + 1, grad.shape[1])
        torch.mul(above, inverse, out=back[:, :-1])
        along = back[:, :-1] * attended.view(above.shape)
        torch.sum(along, 1, keepdim=True, out=back[:, -1:]).neg_()
        projected_back = torch.empty(len(projections), grad.shape[1])
        keys_back, values_back = torch.zeros_like(keys), torch.zeros_like(keys)
        for number, block in enumerate(shape.tables.blocks):
            queries, weights = saved[2 * number : 2 * number + 2]
            block_back = _apart(back, shape, block).reshape(len(keys), shape.dim + 1, -1)
            scores_back = torch.bmm(values[..., : block.end].transpose(1, 2), block_back)
            scores_back.mul_(weights)
            values_back[..., : block.end] += torch.bmm(block_back[:, :-1], weights.transpose(1, 2))
            keys_back[..., : block.end] += torch.bmm(queries, scores_back.transpose(1, 2))
            _queries_back(
                torch.bmm(keys[..., : block.end], scores_back), projected_back, shape, block
            )
        _keys_and_values_back(keys_back, values_back, projected_back, shape)
        normed_back = shape.product(projections.t(), projected_back)
        gradient = _normed_back(normed_back, normed, factor).add_(grad)
        weight_back = shape.product(projected_back, normed.t())
        return gradient, weight_back, shape.product(grad, attended.t()), None, None


def _apart(flat: Tensor, shape: _Shape, block: _Block) -> Tensor:
    """View of [H·n, N], for any n, as [K, b, n, G, c]."""
    whole = flat.view(shape.kv, shape.groups, -1, shape.rows, shape.length)
    return whole.permute(0, 3, 2, 1, 4)[..., block.start : block.end]


def _query_part(projected: Tensor, shape: _Shape, block: _Block) -> Tensor:
    """View of a block's queries in [(H + 2K)·D, N]: [K, b, 2, D/2, G, c]."""
    own = projected[: shape.heads * shape.dim]
    return _apart(own, shape, block).unflatten(2, (2, -1))


def _queries(projected: Tensor, shape: _Shape, block: _Block) -> Tensor:
    """Turned queries of a block: [K·b, D, G·c]."""
    source = _query_part(projected, shape, block)
    queries = torch.empty(source.shape)
    inside = slice(block.start, block.end)
    cos, sin = shape.tables.cos[:, None, inside], shape.tables.sin[:, None, inside]
    turn(source, queries, cos, sin, dim=2)
    return queries.view(shape.kv * shape.rows, shape.dim, -1)


def _queries_back(gradient: Tensor, projected: Tensor, shape: _Shape, block: _Block) -> None:
    """The backward pass of `_queries`, into the gradient of `projected`."""
    target = _query_part(projected, shape, block)
    inside = slice(block.start, block.end)
    # Scores are powers of two: their derivative brings ln 2 = 1 / log₂e.
    cos, sin = (t[:, None, inside] / LOG2E for t in (shape.tables.cos, shape.tables.sin))
    turn(gradient.view(target.shape), target, cos, sin.neg_(), dim=2)


def _key_parts(projected: Tensor, shape: _Shape) -> tuple[Tensor, Tensor]:
    """Views of [(H + 2K)·D, N]: keys [K, b, 2, D/2, s], values [K, b, D, s]."""
    heads, kv, dim, rows, length = shape.heads, shape.kv, shape.dim, shape.rows, shape.length
    k = projected[heads * dim : (heads + kv) * dim].view(kv, 2, dim // 2, rows, length)
    v = projected[(heads + kv) * dim :].view(kv, dim, rows, length)
    return k.permute(0, 3, 1, 2, 4), v.permute(0, 2, 1, 3)


def _keys_and_values(projected: Tensor, shape: _Shape) -> tuple[Tensor, Tensor]:
    """Turned keys [K·b, D, s] and values with ones [K·b, D + 1, s]."""
    k, v = _key_parts(projected, shape)
    keys = torch.empty(k.shape)
    turn(k, keys, shape.tables.cos, shape.tables.sin, dim=2)
    values = torch.empty((*v.shape[:2], shape.dim + 1, shape.length))
    values[:, :, :-1] = v
    values[:, :, -1] = 1.0
    batch = shape.kv * shape.rows
    return keys.view(batch, shape.dim, -1), values.view(batch, shape.dim + 1, -1)


def _keys_and_values_back(keys: Tensor, values: Tensor, projected: Tensor, shape: _Shape) -> None:
    """The backward pass of `_keys_and_values`, into the gradient of `projected`."""
    k, v = _key_parts(projected, shape)
    turn(keys.view(k.shape), k, shape.tables.cos / LOG2E, -shape.tables.sin / LOG2E, dim=2)
    v.copy_(values.view(v.shape))


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
