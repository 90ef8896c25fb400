"""Float32 master weights of a module that computes in bfloat16.

A weight in bfloat16 has 8 bits of precision: a step of less than about 1/500 of it is rounded away.
So the optimiser steps on float32 masters, the module computes with their rounded copies, and each
micro-batch's gradient is added up in float32 (Micikevicius et al. 2018, Mixed Precision Training,
§3.1). The module computes as one that was loaded in bfloat16 does, so a policy that learns and a
frozen copy of it agree to the bit, and so do sampling and training up to their kernels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class ParameterView(nn.Module):
    """Some parameters of other modules, so that a checkpoint holds only these."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]):
        super().__init__()
        for name, parameter in parameters.items():
            self.register_parameter(name.replace(".", "/"), parameter)


class MasterWeights(ParameterView):
    """The masters of a module's trainable parameters; tied ones once.

    Args:
        module: in float32; afterwards it computes in `dtype`.

    The gradients that a backward pass through the module leaves are added to the masters' and
    cleared there.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype):
        rounded = {name: p for name, p in module.named_parameters() if p.requires_grad}
        super().__init__({name: nn.Parameter(p.detach()) for name, p in rounded.items()})
        self._rounded = list(rounded.values())
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(_adder(master))
            for parameter, master in zip(self._rounded, self.parameters(), strict=True)
        ]
        cast_parameters(module, dtype)  # new storage; the masters keep the old one

    @torch.no_grad()
    def publish(self) -> None:
        """Round the masters into the module."""
        for parameter, master in zip(self._rounded, self.parameters(), strict=True):
            parameter.copy_(master)

    @torch.no_grad()
    def return_to(self, module: nn.Module) -> None:
        """Have the module compute in float32 again, with the masters as its weights."""
        for hook in self._hooks:
            hook.remove()
        for parameter, master in zip(self._rounded, self.parameters(), strict=True):
            parameter.data = master.data
        cast_parameters(module, torch.float32)


def cast_parameters(module: nn.Module, dtype: torch.dtype) -> None:
    """Give a module's parameters another format, and leave its buffers alone.

    `module.to(dtype)` would round the frequencies of rotary positions too, which a model that is
    loaded in `dtype` has in float32: at position 1,000 the angles would be off by radians.
    """
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)


def _adder(master: nn.Parameter) -> object:
    def add(parameter: Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        if gradient is not None:
            master.grad = gradient.float() if master.grad is None else master.grad.add_(gradient)

    return add
