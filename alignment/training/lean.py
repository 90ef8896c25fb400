"""Small Llamas on a CPU, forward and backward by hand: the fast path of training.

With a few hundred thousand parameters the matrix products of a training step take a third of its
time; the rest goes into attention kernels made for wide heads and into elementwise passes. Here

* products run through oneDNN, which reads wide registers where MKL does not on every processor;
* activations are [features, tokens], so that every pass runs over long rows, and rotary embedding
  writes queries and keys where attention reads them;
* norm weights and the scaling of the scores are folded into the projections;
* attention weights are exp2 of the scores without the largest taken off first; a row of ones below
  the values adds them up in the same product. A sum out of range is noticed, and then
  transformers' own forward takes over.

Same mathematics, other rounding. Covers what `why_not` does not object to.

Notation: d width, f inner width, H query heads, K key heads, D width of a head, b sequences of s
tokens, N = b·s tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from alignment.models.lean import LOG2E, Rotations
from alignment.models.lean import why_not as why_not_lean
from alignment.models.linear import packs

# Larger models gain nothing, and attention weights are kept: longer sequences would cost memory.
_PARAMETERS = 50_000_000
_LONGEST = 512
# Sums of exponentials between these have neither overflown nor lost what matters.
_LEAST, _MOST = 1e-30, 1e30


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
    if sum(parameter.numel() for parameter in model.parameters()) >= _PARAMETERS:
        return "a large model"
    if getattr(model.config, "hidden_act", None) != "silu":
        return "another activation than SiLU"
    if any(n.endswith("_proj") and m.bias is not None for n, m in model.named_modules()):
        return "biases in its projections"
    return None


class OutOfRange(Exception):
    """Attention scores too large or too small for this path."""


@dataclass(frozen=True)
class _Shape:
    """Sizes, rotary tables [D/2, s] (also times ln 2, for the way back) and causal mask."""

    heads: int
    kv: int
    dim: int
    rows: int
    length: int
    cos: Tensor
    sin: Tensor
    seen: Tensor


class LeanBackbone:
    """The layers of a model whose weights go on changing.

    Args:
        body: a decoder without its head, to which `why_not` has no objection; its parameters are
            used as they are at each call.
    """

    def __init__(self, body: Any):
        config = body.config
        self._body = body
        self._heads = int(config.num_attention_heads)
        self._kv = int(config.num_key_value_heads)
        self._dim = int(getattr(config, "head_dim", None) or config.hidden_size // self._heads)
        self._tables: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

    def hidden(self, ids: Tensor, places: Tensor) -> Tensor:
        """Last hidden states, after the final norm, at chosen places.

        Args:
            ids: (b, s) padded on the right.
            places: (n,) places in the flattened ids.

        Returns:
            (n, d), with a gradient where that is enabled.

        Raises:
            OutOfRange: call the model's own forward.
        """
        rows, length = ids.shape
        if length > _LONGEST:
            raise OutOfRange
        shape = _Shape(self._heads, self._kv, self._dim, rows, length, *self._turns(length))
        base = self._body
        x = torch.nn.functional.embedding(ids.flatten(), base.embed_tokens.weight).t().contiguous()
        for layer in base.layers[:-1]:
            x = _inner(_attention(x, layer, shape), layer)
        # Behind the last attention only the chosen places count.
        x = _inner(_attention(x, base.layers[-1], shape)[:, places], base.layers[-1])
        return torch.nn.functional.rms_norm(
            x.t(), (len(x),), base.norm.weight, base.norm.variance_epsilon
        )

    def _turns(self, length: int) -> tuple[Tensor, Tensor, Tensor]:
        if length not in self._tables:
            with torch.inference_mode(False), torch.no_grad():
                turn = Rotations(SimpleNamespace(model=self._body), length)[torch.arange(length)]
                seen = torch.ones(length, length).triu()[:, None]
                self._tables[length] = turn.cos.t().contiguous(), turn.sin.t().contiguous(), seen
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
    found: Tensor = _Attention.apply(x, projections, out, norm.variance_epsilon, shape)  # type: ignore[no-untyped-call]
    return found


def _inner(h: Tensor, layer: Any) -> Tensor:
    """Second half of a layer: [d, N] → [d, N]."""
    mlp, norm = layer.mlp, layer.post_attention_layernorm
    both = _folded(norm.weight, [(mlp.gate_proj.weight, 1.0), (mlp.up_proj.weight, 1.0)])
    found: Tensor = _Inner.apply(h, both, mlp.down_proj.weight, norm.variance_epsilon)  # type: ignore[no-untyped-call]
    return found


def _folded(gain: Tensor, parts: list[tuple[nn.Parameter, float]]) -> Tensor:
    """Projections of the same normed input as one, with the norm's weight in it."""
    weights = [weight if factor == 1.0 else weight * factor for weight, factor in parts]
    return torch.cat(weights) * gain


def product_of(left: Tensor, right: Tensor) -> Tensor:
    """left @ right of two matrices in float32, by oneDNN where this build of torch has it."""
    if packs():
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            left.contiguous(), right.t(), None, "none", [], ""
        )
        return product
    return left @ right


def _normed(x: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """x / √(mean(x²) + ε) of every column, and what it was multiplied by."""
    size = torch.linalg.vector_norm(x, dim=0)
    factor = torch.rsqrt_(size.square_().mul_(1.0 / len(x)).add_(epsilon))
    return x * factor, factor


def _normed_back(grad: Tensor, normed: Tensor, factor: Tensor) -> Tensor:
    """Gradient before the norm, from the one after it."""
    along = (grad * normed).sum(0).mul_(-1.0 / len(grad))
    return torch.addcmul(grad, normed, along).mul_(factor)


class _Inner(torch.autograd.Function):
    """h + down(silu(gate) · up) of the normed h."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, h: Tensor, inner: Tensor, down: Tensor, epsilon: float
    ) -> Tensor:
        normed, factor = _normed(h, epsilon)
        both = product_of(inner, normed)
        gate, up = both.chunk(2)
        active = torch.nn.functional.silu(gate)
        product = active * up
        ctx.save_for_backward(inner, down, normed, factor, both, active, product)
        return product_of(down, product).add_(h)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        inner, down, normed, factor, both, active, product = ctx.saved_tensors
        gate, up = both.chunk(2)
        back = product_of(down.t(), grad)
        both_back = torch.empty_like(both)
        gate_back, up_back = both_back.chunk(2)
        torch.mul(back, active, out=up_back)
        torch.ops.aten.silu_backward.grad_input(back.mul_(up), gate, grad_input=gate_back)
        found = _normed_back(product_of(inner.t(), both_back), normed, factor).add_(grad)
        return found, product_of(both_back, normed.t()), product_of(grad, product.t()), None


class _Attention(torch.autograd.Function):
    """x + out(attention) of the normed x."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, x: Tensor, projections: Tensor, out: Tensor, epsilon: float, shape: _Shape
    ) -> Tensor:
        normed, factor = _normed(x, epsilon)
        projected = product_of(projections, normed)
        queries, keys, values = _spread(projected, shape)
        weights = torch.bmm(keys.transpose(1, 2), queries).exp2_()
        weights.view(-1, shape.length, shape.heads // shape.kv, shape.length).mul_(shape.seen)
        sums = torch.bmm(values, weights)
        total = sums[:, -1:]
        low, high = torch.aminmax(total)
        if not (float(low) > _LEAST and float(high) < _MOST):
            raise OutOfRange
        total.reciprocal_()
        sums[:, :-1].mul_(total)
        attended = _gathered(sums, shape)
        ctx.shape = shape
        ctx.save_for_backward(
            projections, out, normed, factor, queries, keys, values, weights, sums, attended
        )
        return product_of(out, attended).add_(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        projections, out, normed, factor, queries, keys, values, weights, sums, attended = (
            ctx.saved_tensors
        )
        shape: _Shape = ctx.shape
        back = torch.empty_like(sums)
        _scatter(product_of(out.t(), grad), back, shape)
        # Of a quotient n/t: 1/t above, and −(n/t)/t below, summed over the head.
        torch.sum(back[:, :-1] * sums[:, :-1], 1, keepdim=True, out=back[:, -1:]).neg_()
        back.mul_(sums[:, -1:])
        scores_back = torch.bmm(values.transpose(1, 2), back).mul_(weights)
        values_back = torch.bmm(back, weights.transpose(1, 2))
        queries_back = torch.bmm(keys, scores_back)
        keys_back = torch.bmm(queries, scores_back.transpose(1, 2))
        projected_back = _spread_back(queries_back, keys_back, values_back, shape)
        normed_back = product_of(projections.t(), projected_back)
        found = _normed_back(normed_back, normed, factor).add_(grad)
        weight_back = product_of(projected_back, normed.t())
        return found, weight_back, product_of(grad, attended.t()), None, None


def _parts(projected: Tensor, shape: _Shape) -> tuple[Tensor, Tensor, Tensor]:
    """Views of [(H + 2K)·D, N]: queries [K, b, 2, D/2, G, s], keys [K, b, 2, D/2, s], values
    [K, b, D, s]; G = H/K query heads share a key head."""
    heads, kv, dim, rows, length = shape.heads, shape.kv, shape.dim, shape.rows, shape.length
    q = projected[: heads * dim].view(kv, heads // kv, 2, dim // 2, rows, length)
    k = projected[heads * dim : (heads + kv) * dim].view(kv, 2, dim // 2, rows, length)
    v = projected[(heads + kv) * dim :].view(kv, dim, rows, length)
    return q.permute(0, 4, 2, 3, 1, 5), k.permute(0, 3, 1, 2, 4), v.permute(0, 2, 1, 3)


def _turn(source: Tensor, target: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotary embedding of [K, b, 2, …] into a target of the same shape."""
    first, second = source[:, :, 0], source[:, :, 1]
    torch.mul(first, cos, out=target[:, :, 0]).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=target[:, :, 1]).addcmul_(first, sin)


def _spread(projected: Tensor, shape: _Shape) -> tuple[Tensor, Tensor, Tensor]:
    """Turned queries [K·b, D, G·s], turned keys [K·b, D, s], values with ones [K·b, D + 1, s]."""
    q, k, v = _parts(projected, shape)
    queries, keys = (torch.empty(part.shape) for part in (q, k))
    _turn(q, queries, shape.cos[:, None], shape.sin[:, None])
    _turn(k, keys, shape.cos, shape.sin)
    values = torch.empty((*v.shape[:2], shape.dim + 1, shape.length))
    values[:, :, :-1] = v
    values[:, :, -1] = 1.0
    batch = shape.kv * shape.rows
    return (
        queries.view(batch, shape.dim, -1),
        keys.view(batch, shape.dim, -1),
        values.view(batch, shape.dim + 1, -1),
    )


def _spread_back(queries: Tensor, keys: Tensor, values: Tensor, shape: _Shape) -> Tensor:
    """Gradient [(H + 2K)·D, N] from those of what `_spread` made."""
    found = torch.empty((shape.heads + 2 * shape.kv) * shape.dim, shape.rows * shape.length)
    q, k, v = _parts(found, shape)
    # Scores are powers of two: their derivative brings ln 2 = 1 / log₂e.
    cos, sin = shape.cos / LOG2E, shape.sin / LOG2E
    _turn(queries.view(q.shape), q, cos[:, None], -sin[:, None])
    _turn(keys.view(k.shape), k, cos, -sin)
    v.copy_(values[:, :-1].view(v.shape))
    return found


def _heads_apart(flat: Tensor, shape: _Shape) -> Tensor:
    """View of [H·D, N] as [K, b, D, G, s]."""
    kv, groups = shape.kv, shape.heads // shape.kv
    parts = flat.view(kv, groups, shape.dim, shape.rows, shape.length)
    return parts.permute(0, 3, 2, 1, 4)


def _gathered(sums: Tensor, shape: _Shape) -> Tensor:
    """[H·D, N] from the first D rows of [K·b, D + 1, G·s]."""
    found = torch.empty(shape.heads * shape.dim, shape.rows * shape.length)
    target = _heads_apart(found, shape)
    target.copy_(sums[:, :-1].view(target.shape))
    return found


def _scatter(flat: Tensor, target: Tensor, shape: _Shape) -> None:
    """The way back of `_gathered`, into the first D rows."""
    source = _heads_apart(flat, shape)
    target[:, :-1].view(source.shape).copy_(source)


class TokenLogprobs(torch.autograd.Function):
    """log softmax(head · hidden / temperature) of given tokens, without a second copy of logits.

    Args:
        hidden: (n, d).
        head: (v, d).
        tokens: (n,) int64.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, hidden: Tensor, head: Tensor, tokens: Tensor, temperature: float
    ) -> Tensor:
        logits = product_of(hidden, head.t())
        if temperature != 1.0:
            logits.div_(temperature)
        total = torch.logsumexp(logits, -1, keepdim=True)
        found = logits.gather(-1, tokens[:, None]).sub_(total)[:, 0]
        ctx.temperature = temperature
        ctx.save_for_backward(hidden, head, tokens, logits, total)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        hidden, head, tokens, logits, total = ctx.saved_tensors
        grad = grad[:, None] / ctx.temperature
        back = (logits - total).exp_().mul_(-grad)
        back.scatter_add_(-1, tokens[:, None], grad)
        return product_of(back, head), product_of(back.t(), hidden), None, None
