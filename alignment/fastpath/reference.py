"""The reference of all passes here: a Llama in plain torch, one sequence at a time.

Only tests use it, to compare the fast passes and transformers with it. Read it before the other
files of this package: each of them is this computation, rearranged for speed. Its gradients come
from autograd.

Notation: s tokens, d width, H query heads, K key heads, D width of a head.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding, linear, silu


def hidden(model: Any, ids: Tensor) -> Tensor:
    """Hidden states (s, d) after the last norm, of ids (s,).

    Args:
        model: transformers' Llama, with or without a head.
    """
    body = getattr(model, "model", model)
    config = body.config
    heads, kv = config.num_attention_heads, config.num_key_value_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    cos, sin = rotation(len(ids), dim, config.rope_parameters["rope_theta"])
    x = embedding(ids, body.embed_tokens.weight, body.embed_tokens.padding_idx)
    for layer in body.layers:
        own, mlp = layer.self_attn, layer.mlp
        y = norm(x, layer.input_layernorm)
        # (heads, s, D); query head h looks at key head h·K // H.
        queries = turned(apart(y, own.q_proj, heads), cos, sin)
        keys = turned(apart(y, own.k_proj, kv), cos, sin).repeat_interleave(heads // kv, 0)
        values = apart(y, own.v_proj, kv).repeat_interleave(heads // kv, 0)
        scores = queries @ keys.mT / math.sqrt(dim)
        future = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)
        weights = scores.masked_fill(future, -math.inf).softmax(-1)
        attended = (weights @ values).transpose(0, 1).flatten(1)
        x = x + linear(attended, own.o_proj.weight)
        y = norm(x, layer.post_attention_layernorm)
        inner = silu(linear(y, mlp.gate_proj.weight)) * linear(y, mlp.up_proj.weight)
        x = x + linear(inner, mlp.down_proj.weight)
    return norm(x, body.norm)


def norm(x: Tensor, module: Any) -> Tensor:
    """RMSNorm: x / √(mean(x²) + ε), times a weight."""
    size = x.square().mean(-1, keepdim=True)
    return x * torch.rsqrt(size + module.variance_epsilon) * module.weight


def apart(x: Tensor, projection: Any, heads: int) -> Tensor:
    """A projection (s, d) → (s, heads·D), as (heads, s, D)."""
    return linear(x, projection.weight, projection.bias).unflatten(-1, (heads, -1)).transpose(0, 1)


def rotation(length: int, dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines (s, D/2): pair i of a head turns by position · θ^(−2i/D)."""
    rates = theta ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    return angles.cos().float(), angles.sin().float()


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of (heads, s, D): pair i is made of places i and i + D/2."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)
