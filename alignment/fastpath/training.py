"""Small Llamas on a CPU, forward and backward by hand: the fast path of training.

With a few hundred thousand parameters the matrix products take a third of a training step's time;
attention kernels made for wide heads and elementwise passes take the rest. So here

* products run through whichever of oneDNN and MKL is faster here (`feature_major.Product`);
* activations are [features, tokens], so that every pass runs over long rows, and rotary embedding
  writes queries and keys where attention reads them;
* norm weights and the scaling of the scores are folded into the projections;
* sequences attend in groups (`grouped_attention`).

The mathematics is the same, the rounding differs. `why_not` says why a model is not covered.

Notation: d width, N tokens.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from alignment.fastpath import feature_major
from alignment.fastpath.choice import SMALL
from alignment.fastpath.feature_major import Product, in_range, product_of
from alignment.fastpath.grouped_attention import GroupedAttention, Shape
from alignment.fastpath.groups import Layout, of_padded
from alignment.fastpath.layers import LOG2E, Rotations
from alignment.fastpath.layers import why_not as why_not_lean

# Attention weights are kept: longer sequences would cost memory.
LONGEST = 512


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
        if max(group.farthest for group in layout.groups) > LONGEST:
            return None
        return self._hidden(layout, places)

    def _hidden(self, layout: Layout, places: Tensor) -> Tensor:
        cos, sin = self._tables(layout.positions)
        shape = Shape(self._heads, self._kv, self._dim, cos, sin, layout.groups, self._product)
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


def _attention(x: Tensor, layer: Any, shape: Shape) -> Tensor:
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
    output: Tensor = GroupedAttention.apply(x, projections, out, norm.variance_epsilon, shape)  # type: ignore[no-untyped-call]
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


class _Norm(torch.autograd.Function):
    """`feature_major.normed`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, epsilon: float) -> Tensor:
        normed, factor = feature_major.normed(x, epsilon)
        ctx.save_for_backward(normed, factor)
        return normed

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return feature_major.normed_back(grad, *ctx.saved_tensors), None


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
        gradient = feature_major.normed_back(product(inner.t(), both_back), normed, factor).add_(
            grad
        )
        return gradient, product(both_back, normed.t()), product(grad, passed.t()), None, None


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
