"""Attention over many answers packed into one row, without padding or repeated prefixes.

A mask over a packed row costs as much as full attention. Here the row is cut into blocks of
queries, and each block gets only the keys that it may attend to: the shared prefix, and its own
answer up to itself. It plugs into transformers' `AttentionInterface`, so it works with every
architecture that uses that; `rewards.batches` tries it before use.

It is made for the CPU, where the general kernels skip nothing under a mask and small calls are
cheap.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from alignment.models.row_layout import Block, Inputs, Plan, Row

NAME = "align_packed"


def plan_of(rows: Sequence[Row]) -> Plan:
    """The blocks of `rows`, one after another."""
    blocks, scored = [], []
    first = 0
    for row in rows:
        size = 64 if len(row) <= 1024 else 256
        shared = first + len(row.prefix)
        for start in range(first, shared, size):
            blocks.append(Block(start, min(start + size, shared), first, first, first))
        own = shared
        for tail in row.tails:
            end = own + len(tail)
            for start in range(own, end, size):
                blocks.append(Block(start, min(start + size, end), first, shared, own))
            scored.append(Block(end - 1, end, first, shared, own))
            own = end
        first = own
    return Plan(first, tuple(blocks), tuple(scored))


def pack(rows: Sequence[Row], *, device: torch.device | str = "cpu") -> Inputs:
    """One row (1, T) of all `rows` behind one another, and where each may look."""
    ids: list[int] = []
    positions: list[int] = []
    column, answers = [], []
    for row in rows:
        ids += row.prefix
        positions += range(len(row.prefix))
        for tail, answer in zip(row.tails, row.answers, strict=True):
            ids += tail
            positions += range(len(row.prefix), len(row.prefix) + len(tail))
            column.append(len(ids) - 1)
            answers.append(answer)
    return Inputs(
        ids=torch.tensor([ids], device=device),
        positions=torch.tensor([positions], device=device),
        mask=None,
        row=torch.zeros(len(column), dtype=torch.int64, device=device),
        column=torch.tensor(column, device=device),
        answers=answers,
        plan=plan_of(rows),
    )


class _Current(threading.local):
    """The plan of the forward pass that runs now: the attention modules hand nothing through."""

    plan: Plan | None = None


_current = _Current()


def set_plan(plan: Plan | None) -> None:
    """The plan of the next forward pass. It stays until the next one is set, for a backward pass
    that recomputes activations."""
    _current.plan = plan


@contextmanager
def packed_attention(model: PreTrainedModel) -> Iterator[None]:
    """Have `model` use planned attention in the block."""
    before = model.config._attn_implementation
    model.config._attn_implementation = NAME
    try:
        yield
    finally:
        set_plan(None)
        model.config._attn_implementation = before


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention by the current plan; (1, heads, T, width) in, (1, T, heads, width) out.

    In the last layer only the tokens that are scored ask: nobody reads what the others would get.

    Raises:
        NotImplementedError: no plan fits, or the architecture asks for more than plain attention.
    """
    plan = _current.plan
    unknown = ("softcap", "s_aux", "position_bias")
    special = [name for name in unknown if kwargs.get(name) is not None]
    if plan is None or attention_mask is not None or special or dropout:
        raise NotImplementedError(f"packed attention cannot serve this call {special}")
    if query.shape[0] != 1 or query.shape[2] != plan.tokens:
        raise NotImplementedError("packed attention was given other tokens than planned")
    layers = getattr(getattr(module, "config", None), "num_hidden_layers", None)
    last = layers is not None and getattr(module, "layer_idx", None) == layers - 1
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    with torch.autocast(query.device.type, enabled=False):
        blocks = plan.scored if last else plan.all
        output = BlockAttention.apply(query, key, value, blocks, scale)  # type: ignore[no-untyped-call]
    return output.to(query.dtype), None


class Packing:
    """What the door hands out."""

    pack = staticmethod(pack)
    attending = staticmethod(packed_attention)
    set_plan = staticmethod(set_plan)


class BlockAttention(torch.autograd.Function):
    """softmax(scale · q kᵀ) v over the blocks of a plan, in float32 or better.

    Like FlashAttention it keeps no weights for the backward pass but computes them again. All
    products are arranged so that the small head width is never the long way round: on a CPU that
    makes this 2–3 times as fast as the general kernels for heads of 8 to 32.

    Shapes: K key heads, G query heads to each, T tokens, D width; c queries and n keys a block.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, blocks: Sequence[Block], scale: float
    ) -> Tensor:
        """(1, K·G, T, D), (1, K, T, D) twice → (1, T, K·G, D)."""
        heads, tokens, width = key.shape[1:]
        q = (_whole(query[0]) * scale).view(heads, -1, tokens, width)
        k, v = (_whole(t[0]).transpose(1, 2).contiguous() for t in (key, value))
        out = q.new_zeros(heads, width, q.shape[1], tokens)
        future = _future(blocks, q)
        for block in blocks:
            _, weights = _weights(q, k, block, future)
            output = torch.bmm(block.keys(v), weights.transpose(1, 2))
            out[..., block.start : block.end] = output.view(heads, width, q.shape[1], -1)
        ctx.save_for_backward(q, k, v, out)
        ctx.blocks, ctx.scale, ctx.dtypes = blocks, scale, (query.dtype, key.dtype, value.dtype)
        return out.permute(3, 0, 2, 1).reshape(1, tokens, -1, width)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value."""
        q, k, v, out = ctx.saved_tensors
        heads, groups, tokens, width = q.shape
        d_out = _whole(gradients[0][0]).view(tokens, heads, groups, width).permute(1, 3, 2, 0)
        d_out = d_out.contiguous()
        # Σ_j P_ij dP_ij of FlashAttention (2205.14135, eq. 4).
        delta = (d_out * out).sum(1)
        d_q = torch.zeros_like(out)
        d_k, d_v = torch.zeros_like(k), torch.zeros_like(v)
        future = _future(ctx.blocks, q)
        for block in ctx.blocks:
            inside = slice(block.start, block.end)
            queries, weights = _weights(q, k, block, future)
            d_output = d_out[..., inside].reshape(heads, width, -1)
            block.add(d_v, torch.bmm(d_output, weights))
            slope = torch.bmm(d_output.transpose(1, 2), block.keys(v))
            slope.sub_(delta[..., inside].reshape(heads, -1, 1)).mul_(weights)
            d_queries = torch.bmm(block.keys(k), slope.transpose(1, 2))
            d_q[..., inside] = d_queries.view(heads, width, groups, -1)
            block.add(d_k, torch.bmm(queries.transpose(1, 2), slope))
        d_query = (d_q.permute(0, 2, 3, 1) * ctx.scale).reshape(1, heads * groups, tokens, width)
        d_key, d_value = d_k.transpose(1, 2)[None], d_v.transpose(1, 2)[None]
        typed = zip((d_query, d_key, d_value), ctx.dtypes, strict=True)
        return (*(gradient.to(dtype) for gradient, dtype in typed), None, None)


def _weights(q: Tensor, k: Tensor, block: Block, future: Tensor) -> tuple[Tensor, Tensor]:
    """A block's queries (K, G·c, D) and attention weights (K, G·c, n)."""
    heads, groups, _, width = q.shape
    size = block.end - block.start
    queries = q[:, :, block.start : block.end].reshape(heads, groups * size, width)
    scores = torch.bmm(queries, block.keys(k))
    if size > 1:
        own = scores.view(heads, groups, size, -1)[..., -size:]
        own += future[:size, :size]
    return queries, torch.softmax(scores, dim=-1)


def _future(blocks: Sequence[Block], like: Tensor) -> Tensor:
    """(c, c): −∞ where a key comes after its query, 0 else."""
    size = max((block.end - block.start for block in blocks), default=1)
    return like.new_full((size, size), float("-inf")).triu(1)


def _whole(tensor: Tensor) -> Tensor:
    """Half precision as float32."""
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor


AttentionInterface.register(NAME, attention)
