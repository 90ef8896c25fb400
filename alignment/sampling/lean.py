"""Llama-shaped models, stepped without transformers' layers: the fast path of the engine.

For one token a row, most of the time of a small model goes into module calls and into attention
kernels made for long queries; most of the memory of any model goes into K copies of the prompt.
Here

* keys and values of a prompt are kept once and attended to by all its samples in one product
  (as in Hydragen, Juravsky et al. 2024); only the answers have caches of their own;
* a layer is about twenty tensor operations, with the projections of small models fused.

Covers Llama, Mistral and Qwen2 with full attention and plain linear layers; `why_not` says why a
model is not covered, and then `stepper.ModelStepper` takes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import linear, rms_norm

from alignment.sampling.stepper import prefill

_TYPES = ("llama", "mistral", "qwen2")
# Fusing copies the projections; under this size that costs nothing and saves calls.
_FUSE_BELOW = 50_000_000
_CHUNK = 64


def why_not(model: Any) -> str | None:
    """The reason why this model needs the general path, or `None`."""
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


class _Projection:
    """One or several linear maps of the same input, side by side in the output."""

    def __init__(self, maps: Sequence[torch.nn.Linear], fuse: bool):
        self._parts: list[tuple[torch.Tensor, torch.Tensor | None]] = [
            (one.weight, one.bias) for one in maps
        ]
        if fuse and len(maps) > 1 and len({bias is None for _, bias in self._parts}) == 1:
            weight = torch.cat([weight for weight, _ in self._parts])
            biases = [bias for _, bias in self._parts if bias is not None]
            self._parts = [(weight, torch.cat(biases) if biases else None)]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        found = [linear(x, weight, bias) for weight, bias in self._parts]
        return found[0] if len(found) == 1 else torch.cat(found, dim=-1)


class _Layer:
    """The weights of one layer, ready for use."""

    def __init__(self, layer: Any, fuse: bool):
        attention, mlp = layer.self_attn, layer.mlp
        self.qkv = _Projection([attention.q_proj, attention.k_proj, attention.v_proj], fuse)
        self.out = _Projection([attention.o_proj], fuse)
        self.gate_up = _Projection([mlp.gate_proj, mlp.up_proj], fuse)
        self.down = _Projection([mlp.down_proj], fuse)
        self.act = mlp.act_fn
        self.before, self.after = layer.input_layernorm, layer.post_attention_layernorm
        self.scaling = float(attention.scaling)


@dataclass
class _Memory:
    """Keys and values of one layer.

    `prompt_keys` [prompts, kv, dim, length], `prompt_values` [prompts, kv, length, dim];
    `keys` [rows, kv, dim, room], `values` [rows, kv, room, dim].
    """

    prompt_keys: torch.Tensor
    prompt_values: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor


class LeanStepper:
    """See the module; implements `stepper.Stepper` for models of which `why_not` is `None`."""

    def __init__(self, model: Any, steps: int):
        config = model.config
        self._model = model
        self._steps = steps
        self._heads = config.num_attention_heads
        self._kv = config.num_key_value_heads
        self._dim = getattr(config, "head_dim", None) or config.hidden_size // self._heads
        fuse = sum(p.numel() for p in model.parameters()) < _FUSE_BELOW
        self._layers = [_Layer(layer, fuse) for layer in model.model.layers]

    def start(self, prompts: Sequence[Sequence[int]], owner: torch.Tensor) -> torch.Tensor:
        """See `Stepper`."""
        run = prefill(self._model, prompts, 0)
        rows, room = len(owner), min(_CHUNK, self._steps)
        self._memory = []
        for layer in run.cache.layers:
            keys, values = layer.keys, layer.values
            self._memory.append(
                _Memory(
                    keys.transpose(2, 3).contiguous(),
                    values.contiguous(),
                    keys.new_empty((rows, self._kv, self._dim, room)),
                    keys.new_empty((rows, self._kv, room, self._dim)),
                )
            )
        self._bias = None
        if run.padded:
            lowest = torch.finfo(run.logits.dtype).min
            self._bias = ((1 - run.present).to(run.logits.dtype) * lowest)[:, None, None, :]
        self._owner = owner
        self._positions = run.lengths[owner]
        self._count = 0
        self._regroup()
        return run.logits[owner]

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """See `Stepper`."""
        base = self._model.model
        hidden = base.embed_tokens(tokens)
        cos, sin = base.rotary_emb(hidden[:, None], self._positions[:, None])
        half = self._dim // 2
        for layer, memory in zip(self._layers, self._memory, strict=True):
            x = layer.qkv(_norm(layer.before, hidden)).unflatten(-1, (-1, self._dim))
            turned = x[:, : self._heads + self._kv]
            rotated = turned * cos
            rotated[..., :half].addcmul_(turned[..., half:], sin[..., :half], value=-1)
            rotated[..., half:].addcmul_(turned[..., :half], sin[..., half:])
            queries = rotated[:, : self._heads].mul_(layer.scaling)
            self._remember(memory, rotated[:, self._heads :], x[:, self._heads + self._kv :])
            hidden = hidden + layer.out(self._attend(memory, queries))
            gate, up = layer.gate_up(_norm(layer.after, hidden)).chunk(2, dim=-1)
            hidden = hidden + layer.down(layer.act(gate) * up)
        self._count += 1
        self._positions = self._positions + 1
        return self._model.lm_head(_norm(base.norm, hidden))

    def select(self, rows: torch.Tensor) -> None:
        """See `Stepper`."""
        self._owner = self._owner[rows]
        self._positions = self._positions[rows]
        staying = torch.unique(self._owner)
        prompts_left = len(staying) < len(self._memory[0].prompt_keys)
        if prompts_left:
            self._owner = torch.searchsorted(staying, self._owner)
            if self._bias is not None:
                self._bias = self._bias[staying]
        for memory in self._memory:
            memory.keys, memory.values = memory.keys[rows], memory.values[rows]
            if prompts_left:
                memory.prompt_keys = memory.prompt_keys[staying]
                memory.prompt_values = memory.prompt_values[staying]
        self._regroup()

    def _regroup(self) -> None:
        """Lay rows out as [prompts, widest], so that one product serves a prompt's rows."""
        prompts = int(self._owner.max()) + 1
        counts = torch.bincount(self._owner, minlength=prompts)
        self._widest = int(counts.max())
        order = torch.argsort(self._owner, stable=True)
        first = counts.cumsum(0) - counts
        place = torch.empty_like(self._owner)
        arange = torch.arange(len(order), device=order.device)
        place[order] = arange - first[self._owner[order]]
        slots = self._owner * self._widest + place
        regular = prompts * self._widest == len(slots) and bool((slots == arange).all())
        self._slots = None if regular else slots
        self._prompts = prompts

    def _by_prompt(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, kv, groups, n] → [prompts, kv, widest·groups, n]; missing rows are zero."""
        if self._slots is not None:
            spread = x.new_zeros((self._prompts * self._widest, *x.shape[1:]))
            x = spread.index_copy_(0, self._slots, x)
        x = x.unflatten(0, (self._prompts, self._widest)).transpose(1, 2)
        return x.flatten(2, 3)

    def _by_row(self, x: torch.Tensor) -> torch.Tensor:
        """The inverse of `_by_prompt`."""
        x = x.unflatten(2, (self._widest, -1)).transpose(1, 2).flatten(0, 1)
        return x if self._slots is None else x[self._slots]

    def _attend(self, memory: _Memory, queries: torch.Tensor) -> torch.Tensor:
        """Attention over prompt and answer so far: [rows, heads·dim] from [rows, heads, dim]."""
        filled = self._count + 1
        grouped = queries.unflatten(1, (self._kv, -1))
        before = torch.matmul(self._by_prompt(grouped), memory.prompt_keys)
        if self._bias is not None:
            before += self._bias
        after = torch.matmul(grouped, memory.keys[..., :filled])
        scores = torch.cat([self._by_row(before), after], dim=-1)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)
        length = before.shape[-1]
        found = torch.matmul(weights[..., length:], memory.values[:, :, :filled])
        shared = torch.matmul(self._by_prompt(weights[..., :length]), memory.prompt_values)
        return (found + self._by_row(shared)).flatten(1)

    def _remember(self, memory: _Memory, keys: torch.Tensor, values: torch.Tensor) -> None:
        room = memory.keys.shape[-1]
        if self._count == room:
            more = min(self._steps, 2 * room) - room
            memory.keys = torch.nn.functional.pad(memory.keys, (0, more))
            memory.values = torch.nn.functional.pad(memory.values, (0, 0, 0, more))
        memory.keys[..., self._count] = keys
        memory.values[:, :, self._count] = values


def _norm(module: Any, x: torch.Tensor) -> torch.Tensor:
    return rms_norm(x, (x.shape[-1],), module.weight, module.variance_epsilon)
