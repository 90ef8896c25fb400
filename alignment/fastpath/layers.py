"""Llama-shaped models as plain tensor operations: the layers of the fast paths.

For short inputs a small model spends most of its time on module calls. Here a layer is a few
operations on a flat list of tokens. The caller computes attention, because only it knows which
token attends to which (`decoding`, `scoring`). Llama, Mistral and Qwen2 with full attention and
plain linear layers are covered; `why_not` says why a model is not.

Notation: N tokens, H query heads, K key heads, D width of a head.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from alignment.fastpath.choice import SMALL
from alignment.fastpath.packed_linear import PackedLinear

_TYPES = ("llama", "mistral", "qwen2")
LOG2E = 1.4426950408889634


def why_not(model: Any) -> str | None:
    """The reason why this model needs transformers' own forward, or `None`.

    Args:
        model: with language-model or scalar head; its layers stand in `model.model.layers`.
    """
    config = model.config
    if getattr(config, "model_type", None) not in _TYPES:
        return f"model type {getattr(config, 'model_type', None)!r}"
    if set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        return "not all layers attend to everything"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return "a sliding window"
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope in ("dynamic", "longrope"):
        return f"rotary embedding of type {rope!r}"
    for name, module in model.named_modules():
        if name.endswith("_proj") and type(module) is not torch.nn.Linear:
            return f"{name} is a {type(module).__name__}"
        if module._forward_hooks or module._forward_pre_hooks:
            return f"a hook on {name or 'the model'}"
    if len({str(parameter.device) for parameter in model.parameters()}) > 1:
        return "weights on several devices"
    return None


class Layer(Protocol):
    """One layer without its attention."""

    def project(self, hidden: Tensor, turn: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [N, H, D], already turned and scaled, and turned keys and values [N, K, D]."""

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """[N, width] after the layer, from the attention's [N, H·D]; may reuse `hidden`."""


class Rotation:
    """Rotary embedding of N positions: `cos` and `sin` [N, D/2]."""

    def __init__(self, tables: Rotations, positions: Tensor):
        self.cos, self.sin = tables.cos[positions], tables.sin[positions]
        self._tables, self._positions = tables, positions
        self._wide: tuple[Tensor, Tensor] | None = None

    def wide(self, heads: int) -> tuple[Tensor, Tensor]:
        """`cos` and `sin` for both halves of every head: [N, heads·D]."""
        if self._wide is None:
            cos, sin = self._tables.wide(heads)
            self._wide = cos[self._positions], sin[self._positions]
        return self._wide


class Rotations:
    """Cosines and sines [length, D/2] of all positions below `length`, computed once."""

    def __init__(self, model: Any, length: int):
        weight = model.model.embed_tokens.weight
        positions = torch.arange(length, device=weight.device)[None]
        cos, sin = model.model.rotary_emb(weight[:1, None], positions)
        half = cos.shape[-1] // 2
        self.cos, self.sin = cos[0, :, :half].contiguous(), sin[0, :, :half].contiguous()
        self._wide: tuple[Tensor, Tensor] | None = None

    def __getitem__(self, positions: Tensor) -> Rotation:
        return Rotation(self, positions)

    def wide(self, heads: int) -> tuple[Tensor, Tensor]:
        """The tables for both halves of every head: [length, heads·D]."""
        if self._wide is None:
            self._wide = self.cos.repeat(1, 2 * heads), self.sin.repeat(1, 2 * heads)
        return self._wide


class Lean:
    """A model's weights, ready for use. Weights may be copied: make a new one after training.

    Attributes:
        folded: small and in float32 on a CPU, so that its layers are `FoldedLayer`s; the others'
            queries are scaled for exp, theirs for exp2.
    """

    def __init__(self, model: Any):
        config = model.config
        self.model = model
        self.heads: int = config.num_attention_heads
        self.kv: int = config.num_key_value_heads
        self.dim: int = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.folded = self.folds(model)
        kind = FoldedLayer if self.folded else PlainLayer
        shape = (self.heads, self.kv, self.dim)
        self.layers: list[Layer] = [kind(layer, *shape) for layer in model.model.layers]
        self._norm = model.model.norm
        head = getattr(model, "lm_head", None)
        self._head = None
        if self.folded and type(head) is torch.nn.Linear:
            self._head = PackedLinear(head.weight * self._norm.weight, head.bias)

    @staticmethod
    def folds(model: Any) -> bool:
        """Whether the layers of `model` become `FoldedLayer`s."""
        first = next(model.parameters())
        small = sum(parameter.numel() for parameter in model.parameters()) < SMALL
        here = first.dtype == torch.float32 and first.device.type == "cpu"
        return small and here and getattr(model.config, "hidden_act", None) == "silu"

    def embed(self, tokens: Tensor) -> Tensor:
        """[N, width] from ids [N]."""
        return self.model.model.embed_tokens(tokens)

    def norm(self, hidden: Tensor) -> Tensor:
        """The norm before the head."""
        return normed(self._norm, hidden)

    def logits(self, hidden: Tensor) -> Tensor:
        """[N, vocabulary] of a language model, from the last layer's output."""
        if self._head is not None:
            return self._head(scaled(hidden, self._norm.variance_epsilon))
        return self.model.lm_head(self.norm(hidden))


class PlainLayer:
    """The layer's own weights, whatever their size, type and device."""

    def __init__(self, layer: Any, heads: int, kv: int, dim: int):
        self._attention, self._mlp = layer.self_attn, layer.mlp
        self._before, self._after = layer.input_layernorm, layer.post_attention_layernorm
        self._heads, self._kv, self._dim = heads, kv, dim

    def project(self, hidden: Tensor, turn: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`."""
        x = normed(self._before, hidden)
        own = self._attention
        shape = (-1, self._dim)
        queries = own.q_proj(x).unflatten(-1, shape)
        keys = own.k_proj(x).unflatten(-1, shape)
        queries, keys = _turned(queries, turn), _turned(keys, turn)
        return queries.mul_(own.scaling), keys, own.v_proj(x).unflatten(-1, shape)

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """See `Layer`."""
        hidden = hidden + self._attention.o_proj(attended)
        return hidden + self._mlp(normed(self._after, hidden))


class FoldedLayer:
    """Copies of the weights, arranged so that little but matrix products is left to do.

    The weights of both norms and the scaling of the scores (times log₂e: exp2 is several times as
    fast as exp) go into the projections. Queries and keys are projected twice, once a quarter turn
    ahead, [−second half | first half] of every head: then the rotation is two products over long
    rows.
    """

    def __init__(self, layer: Any, heads: int, kv: int, dim: int):
        attention, mlp = layer.self_attn, layer.mlp
        self._heads, self._kv, self._dim = heads, kv, dim
        self._epsilons = (
            layer.input_layernorm.variance_epsilon,
            layer.post_attention_layernorm.variance_epsilon,
        )
        scaling = float(attention.scaling) * LOG2E
        parts = [(attention.q_proj, scaling), (attention.k_proj, 1.0), (attention.v_proj, 1.0)]
        # Weights [d, out] and biases [1, out] under one another.
        queries, keys, values = (
            torch.cat([part.weight.t(), _bias(part)[None]]) * factor for part, factor in parts
        )
        plain = torch.cat([queries, keys], dim=1)
        first, second = plain.unflatten(1, (-1, 2, dim // 2)).unbind(2)
        ahead = torch.stack([-second, first], dim=2).flatten(1)
        whole = torch.cat([plain, ahead, values], dim=1).t()
        bias = whole[:, -1]
        self._qkv = PackedLinear(
            whole[:, :-1] * layer.input_layernorm.weight, bias if bias.any() else None
        )
        self._out = PackedLinear(attention.o_proj.weight, attention.o_proj.bias)
        gain = layer.post_attention_layernorm.weight
        self._gate, self._up = (
            PackedLinear(part.weight * gain, part.bias) for part in (mlp.gate_proj, mlp.up_proj)
        )
        self._down = PackedLinear(mlp.down_proj.weight, mlp.down_proj.bias)

    def project(self, hidden: Tensor, turn: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """See `Layer`; queries are scaled by log₂e too."""
        x = self._qkv(scaled(hidden, self._epsilons[0]))
        cos, sin = turn.wide(self._heads + self._kv)
        size = cos.shape[1]
        turned = (x[:, :size] * cos).addcmul_(x[:, size : 2 * size], sin)
        whole = turned.unflatten(1, (-1, self._dim))
        values = x[:, 2 * size :].unflatten(1, (-1, self._dim))
        return whole[:, : self._heads], whole[:, self._heads :], values

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """See `Layer`."""
        hidden = self._out.plus(attended, hidden)
        x = scaled(hidden, self._epsilons[1])
        return self._down.plus(self._up.times(x, self._gate.silu(x)), hidden)


def _bias(linear: Any) -> Tensor:
    """[out], zeros where there is none."""
    return torch.zeros_like(linear.weight[:, 0]) if linear.bias is None else linear.bias


def scaled(x: Tensor, epsilon: float) -> Tensor:
    """x / √(mean(x²) + ε) over the last dimension: RMSNorm without its weight."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x * torch.rsqrt_(size.square_().mul_(1.0 / x.shape[-1]).add_(epsilon))


def normed(module: Any, x: Tensor) -> Tensor:
    """RMSNorm by `module`'s weight."""
    return rms_norm(x, (x.shape[-1],), module.weight, module.variance_epsilon)


def _turned(x: Tensor, turn: Rotation) -> Tensor:
    """Rotary embedding of [N, heads, D]."""
    half = x.shape[-1] // 2
    cos, sin = turn.cos[:, None], turn.sin[:, None]
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
