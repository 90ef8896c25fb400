"""Running the model: every prompt once, then one token a row at a time."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from alignment.models.kv_cache import new_cache
from alignment.models.padding import pad


class Stepper(Protocol):
    """A batch on its way through a model. Rows keep their order until `select`."""

    def start(self, prompts: Sequence[Sequence[int]], owner: torch.Tensor) -> torch.Tensor:
        """Run each prompt once; `owner` [rows] says whose prompt a row continues.

        Returns:
            Logits [rows, vocabulary] after the prompt.
        """

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """Feed one token [rows]; logits [rows, vocabulary] after it."""

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order; the others have finished."""


@dataclass
class Prompts:
    """Prompts after the prefill, padded on the left to one length.

    Attributes:
        present: [prompts, length], 1 where there is a token.
        cache: what the model keeps of them.
        full: every layer attends to everything (no sliding window).
        logits: [prompts, vocabulary] after the last token.
    """

    present: torch.Tensor
    cache: Any
    full: bool
    logits: torch.Tensor

    @property
    def lengths(self) -> torch.Tensor:
        """[prompts] tokens of each."""
        return self.present.sum(-1)

    @property
    def padded(self) -> bool:
        """Whether any prompt is shorter than the longest."""
        return bool((self.present == 0).any())


def prefill(model: Any, prompts: Sequence[Sequence[int]], steps: int) -> Prompts:
    """Run all prompts in one forward pass. Only the last position's logits are computed."""
    device = next(model.parameters()).device
    # Left padding: every sequence's next token goes into the same slot of the cache.
    ids = pad(prompts, 0, left=True)
    present = pad([[1] * len(prompt) for prompt in prompts], 0, left=True).to(device)
    padded = any(len(prompt) < ids.shape[1] for prompt in prompts)
    cache, full = new_cache(model.config, ids.shape[1] + steps)
    logits = model(
        input_ids=ids.to(device),
        attention_mask=present if padded else None,
        position_ids=(present.cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        **last_only(model),
    ).logits[:, -1]
    return Prompts(present, cache, full, logits)


def last_only(model: Any) -> dict[str, int]:
    """Ask for the last position's logits alone where the model can be asked."""
    takes = "logits_to_keep" in inspect.signature(model.forward).parameters
    return {"logits_to_keep": 1} if takes else {}


class ModelStepper:
    """Steps through the model's own forward: any architecture that transformers can generate with.

    The prompt's cache is repeated for each row and grows in place.
    """

    def __init__(self, model: Any, steps: int):
        self._model = model
        self._steps = steps
        self._last_only = last_only(model)

    def start(self, prompts: Sequence[Sequence[int]], owner: torch.Tensor) -> torch.Tensor:
        """See `Stepper`."""
        run = prefill(self._model, prompts, self._steps)
        self._cache = run.cache
        self._cache.batch_select_indices(owner)
        self._positions = run.lengths[owner][:, None]
        self._length = run.present.shape[1]
        self._mask = None
        if run.padded:
            room = torch.nn.functional.pad(run.present, (0, self._steps), value=1)[owner]
            if run.full:
                # A ready-made additive mask spares transformers' mask building at every token.
                lowest = torch.finfo(run.logits.dtype).min
                room = ((1 - room).to(run.logits.dtype) * lowest)[:, None, None, :]
            self._mask = room
        return run.logits[owner]

    def step(self, tokens: torch.Tensor) -> torch.Tensor:
        """See `Stepper`."""
        self._length += 1
        logits: torch.Tensor = self._model(
            input_ids=tokens[:, None],
            attention_mask=None if self._mask is None else self._mask[..., : self._length],
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            **self._last_only,
        ).logits[:, -1]
        self._positions = self._positions + 1
        return logits

    def select(self, rows: torch.Tensor) -> None:
        """See `Stepper`."""
        self._cache.batch_select_indices(rows)
        self._positions = self._positions[rows]
        if self._mask is not None:
            self._mask = self._mask[rows]
