"""The share of parameters that an optimiser step changes: a step may be rounded away."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from alignment.utils import distributed

FEW = 0.5
"""Under this share most of what a step was to change stays as it was."""
_SAMPLE = 16  # about how many places are looked at along each dimension of a tensor


class UpdateShare:
    """Measures steps on a sample of the entries of each parameter.

    Args:
        parameters: those that an optimiser trains.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]):
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._before: list[tuple[Tensor, Tensor, Tensor]] = []

    @torch.no_grad()
    def before_step(self) -> None:
        """Note the entries whose gradient asks for a change; call it after the backward passes."""
        self._before = []
        for parameter in self._parameters:
            if parameter.grad is not None:
                entries, gradient = _sample(parameter), _sample(parameter.grad)
                self._before.append((entries, entries.clone(), gradient != 0))

    @torch.no_grad()
    def after_step(self) -> float:
        """The share of these entries that the step changed; 1 if no gradient asked for a change."""
        counts = [
            torch.stack([((now != before) & asked).sum(), asked.sum()])
            for now, before, asked in self._before
        ]
        self._before = []
        if not counts:
            return 1.0
        changed, asked = torch.stack(counts).sum(0).tolist()
        return changed / asked if asked else 1.0


def _sample(tensor: Tensor) -> Tensor:
    """Entries at even distances; a view, so that it shows what a step does to the tensor."""
    sample = distributed.local(tensor.detach())
    for dimension, size in enumerate(sample.shape):
        every = slice(None, None, max(1, size // _SAMPLE))
        sample = sample[(slice(None),) * dimension + (every,)]
    return sample


def lost_updates(share: float) -> str | None:
    """What to say of a training whose steps changed this share of the parameters, if anything."""
    if share >= FEW:
        return None
    return (
        f"updates are lost: a step changes {share:.0%} of the parameters that it is to change; "
        "raise the learning rate"
    )
