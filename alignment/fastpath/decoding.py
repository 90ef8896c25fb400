"""Decoding with Llama-shaped models without transformers' layers: the fast path of the engine.

With one token per row, a small model spends most of its time on module calls and on attention
kernels made for long queries, and any model spends most memory on K copies of the prompt. Here a
prompt's keys and values are stored once, and all its samples attend to them in one product (as in
Hydragen, Juravsky et al. 2024); only the answers have their own caches. The layers are those of
`layers`; other models use `stepper.ModelStepper`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alignment.fastpath.layers import Lean, Rotations
from alignment.models.stepper import prefill

_CHUNK = 64
_LEAST_WIDTH = 32
# Sums of exponentials between these have neither overflown nor lost what matters.
_LEAST, _MOST = 1e-30, 1e30


@dataclass
class _Memory:
    """Keys and values of one layer, zero where there is no token.

    `prompt_keys` [prompts, kv, dim, length], `prompt_values` [prompts, kv, dim (+ 1), length];
    `keys` [rows, kv, dim, room], `values` [rows, kv, dim (+ 1), room]. The values of folded layers
    have a last row that is 1 at every token: it adds up the weights.
    """

    prompt_keys: torch.Tensor
    prompt_values: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor


class LeanStepper:
    """See the module; implements `stepper.Stepper` for models of which `why_not` is `None`."""

    def __init__(self, lean: Lean, steps: int):
        self._lean = lean
        self._steps = steps
        self._kv = lean.kv
        self._dim = lean.dim

    def start(self, prompts: Sequence[Sequence[int]], owner: torch.Tensor) -> torch.Tensor:
        """See `Stepper`."""
        run = prefill(self._lean.model, prompts, 0)
        rows, room = len(owner), min(_CHUNK, self._steps)
        self._turns = Rotations(self._lean.model, run.present.shape[1] + self._steps)
        self._memory = []
        present = run.present[:, None, None].to(run.logits.dtype)
        width = self._dim + self._lean.folded
        for layer in run.cache.layers:
            keys, values = layer.keys.transpose(2, 3), layer.values.transpose(2, 3)
            if self._lean.folded:
                values = torch.cat([values, torch.ones_like(values[:, :, :1])], dim=2)
            self._memory.append(
                _Memory(
                    (keys * present).contiguous(),
                    (values * present).contiguous(),
                    keys.new_zeros((rows, self._kv, self._dim, room)),
                    keys.new_zeros((rows, self._kv, width, room)),
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
        hidden = self._lean.embed(tokens)
        turn = self._turns[self._positions]
        for layer, memory in zip(self._lean.layers, self._memory, strict=True):
            queries, keys, values = layer.project(hidden, turn)
            self._remember(memory, keys, values)
            hidden = layer.finish(hidden, self._attend(memory, queries))
        self._count += 1
        self._positions = self._positions + 1
        return self._lean.logits(hidden)

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
        if self._lean.folded:
            output = self._unnormalised(memory, before, grouped)
            if output is not None:
                return output
        after = torch.matmul(grouped, memory.keys[..., :filled])
        return self._softmax(memory, before, after, memory.values[..., :filled])

    def _unnormalised(
        self, memory: _Memory, before: torch.Tensor, queries: torch.Tensor
    ) -> torch.Tensor | None:
        """Attention without subtracting the largest score first, which saves two passes.

        `None` where a sum of weights leaves the range of its number format.
        """
        # Empty places have values of nothing; products below a certain size are slower.
        wide = max(self._count + 1, min(_LEAST_WIDTH, memory.keys.shape[-1]))
        after = torch.matmul(queries, memory.keys[..., :wide]).exp2_()
        output = torch.matmul(after, memory.values[..., :wide].transpose(2, 3))
        shared = torch.matmul(torch.exp2(before), memory.prompt_values.transpose(2, 3))
        output += self._by_row(shared)
        total = output[..., -1:]
        low, high = torch.aminmax(total)
        if not (float(low) > _LEAST and float(high) < _MOST):
            return None
        return (output[..., :-1] / total).flatten(1)

    def _softmax(
        self, memory: _Memory, before: torch.Tensor, after: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        if self._bias is not None:
            before = before + self._bias
        scores = torch.cat([self._by_row(before), after], dim=-1)
        if self._lean.folded:
            scores *= math.log(2)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(scores.dtype)
        length = before.shape[-1]
        shared = self._by_prompt(weights[..., :length])
        output = torch.matmul(weights[..., length:], values.transpose(2, 3))
        output += self._by_row(torch.matmul(shared, memory.prompt_values.transpose(2, 3)))
        return output[..., : self._dim].flatten(1)

    def _remember(self, memory: _Memory, keys: torch.Tensor, values: torch.Tensor) -> None:
        room = memory.keys.shape[-1]
        if self._count == room:
            more = min(self._steps, 2 * room) - room
            memory.keys = torch.nn.functional.pad(memory.keys, (0, more))
            memory.values = torch.nn.functional.pad(memory.values, (0, more))
        memory.keys[..., self._count] = keys
        memory.values[:, :, : self._dim, self._count] = values
        if self._lean.folded:
            memory.values[:, :, -1, self._count] = 1.0
