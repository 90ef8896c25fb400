"""A key/value cache that grows in place and from which finished sequences leave."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from alignment.errors import ConfigError

_CHUNK = 64


class GrowingLayer(DynamicLayer):
    """A full-attention layer whose buffers have room to spare.

    transformers' own layer copies the whole cache at every token; this one writes the new token
    into its slot. `keys` and `values` are views of the filled part: [rows, heads, length, dim].
    """

    def __init__(self, reserve: int = 0):
        super().__init__()  # type: ignore[no-untyped-call]
        self._reserve = reserve
        self._length = 0
        self._key_buffer: torch.Tensor | None = None
        self._value_buffer: torch.Tensor | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append [rows, heads, new, dim] and return everything so far."""
        start, end = self._length, self._length + key_states.shape[-2]
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._key_buffer = self._room(self._key_buffer, key_states, end)
        self._value_buffer = self._room(self._value_buffer, value_states, end)
        self._key_buffer[:, :, start:end] = key_states
        self._value_buffer[:, :, start:end] = value_states
        return self._show(end)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep rows `indices`, in that order; a row may appear several times."""
        if self._key_buffer is None or self._value_buffer is None:
            return
        length, room = self._length, max(self._key_buffer.shape[-2], self._reserve)
        self._key_buffer = _select(self._key_buffer, indices, length, room)
        self._value_buffer = _select(self._value_buffer, indices, length, room)
        self._show(length)

    def _room(self, buffer: torch.Tensor | None, like: torch.Tensor, end: int) -> torch.Tensor:
        if buffer is not None and buffer.shape[-2] >= end:
            return buffer
        rows, heads, _, width = like.shape
        # The prompt alone is not given the reserve: it is repeated K times first.
        capacity = end if buffer is None else max(end + _CHUNK, self._reserve)
        grown = like.new_empty((rows, heads, capacity, width))
        if buffer is not None:
            grown[:, :, : self._length] = buffer[:, :, : self._length]
        return grown

    def _show(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        assert self._key_buffer is not None
        assert self._value_buffer is not None
        self._length = length
        keys, values = self._key_buffer[:, :, :length], self._value_buffer[:, :, :length]
        self.keys, self.values = keys, values
        return keys, values


def _select(buffer: torch.Tensor, indices: torch.Tensor, length: int, room: int) -> torch.Tensor:
    rows = indices.shape[0]
    fresh = buffer.new_empty((rows, buffer.shape[1], room, buffer.shape[3]))
    torch.index_select(buffer[:, :, :length], 0, indices, out=fresh[:, :, :length])
    return fresh


def new_cache(config: Any, reserve: int) -> tuple[DynamicCache, bool]:
    """A cache for `config`, and whether every layer attends to everything (no sliding window).

    Args:
        reserve: length at which sequences are expected to end.

    Raises:
        ConfigError: a layer keeps a state from which rows cannot be taken.
    """
    cache = DynamicCache(config=config)
    full = True
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[index] = GrowingLayer(reserve)
        elif hasattr(layer, "batch_select_indices"):
            full = False
        else:
            raise ConfigError(
                f"layer {index} of this model keeps a {type(layer).__name__}, "
                "which the transformers engine cannot repeat for K samples",
                remedy="set inference.engine: vllm",
            )
    if not cache.layers:
        cache.layer_class_to_replicate = lambda: GrowingLayer(reserve)  # type: ignore[assignment]
    return cache, full
