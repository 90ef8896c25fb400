"""Models whose weights, gradients and optimiser state are split over the processes.

The mechanism is torch's `fully_shard` (FSDP2; Zhao et al. 2023, "PyTorch FSDP", arXiv 2304.11277):
every transformer block is gathered when it computes and dropped again, so that a process holds its
share of everything and one whole block. Gradients are summed, not averaged, over the processes, as
`distributed.sum_gradients` does with whole copies: one process and several take the same steps up
to rounding.

All processes must run the same number of forward and backward passes of a sharded model, in the
same order: `rounds` says how many, and who has no work left computes something that counts nothing.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from alignment.errors import ConfigError
from alignment.models.load import scalar_head
from alignment.utils import distributed

T = TypeVar("T")
_RUN, _COMPUTE = "run_inside", "compute_format"


def shard(
    model: Any,
    compute: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> None:
    """Split a model over all processes, in place.

    Args:
        model: with the same weights in all processes, or on the meta device. What learns is in
            float32.
        compute: number format of the passes; None computes in that of the weights.
        device: where the weights will be; None leaves them where they are.

    Raises:
        ConfigError: the architecture does not say what its blocks are.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import (  # a third of a second, for every stage
        FSDPModule,
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    place = next(model.parameters()).device if device is None else torch.device(device)
    mesh = init_device_mesh(place.type, (distributed.size(),))
    half = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
    policy = MixedPrecisionPolicy() if compute is None else half
    names = set(getattr(model, "_no_split_modules", None) or ())
    blocks = [module for module in model.modules() if type(module).__name__ in names]
    if not blocks:
        raise ConfigError(
            f"{type(model).__name__} does not say which of its modules are blocks",
            where="compute.sharding",
            remedy="set compute.sharding: none",
        )
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy)
    if any(hasattr(model, name) for name in ("score", "classifier")):
        fully_shard(scalar_head(model), mesh=mesh)  # float32, whatever the rest computes in
    # Dropped after the forward pass too, unlike torch's default: else `parameters()` would be whole
    # tensors from there to the backward pass, for an optimiser too that is made in between.
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            # gloo knows no sum that multiplies before, and NCCL's loses small numbers in 16 bits.
            module.set_force_sum_reduction_for_comms(True)
    setattr(model, _COMPUTE, compute)
    setattr(model, _RUN, types.MethodType(lambda _self, work, *args: work(*args), model))
    register_fsdp_forward_method(model, _RUN)


def is_sharded(module: nn.Module) -> bool:
    """Whether `shard` split this module."""
    return hasattr(module, _RUN)


def compute_format(module: nn.Module) -> torch.dtype:
    """The number format that a model computes in."""
    compute: torch.dtype | None = getattr(module, _COMPUTE, None)
    return compute or next(module.parameters()).dtype


def autocast_format(module: nn.Module, dtype: str) -> torch.dtype | None:
    """The format in which autocast must run the passes of a model with float32 weights, so that it
    computes in `dtype`; None where it does so by itself.

    Shards are cast when they are gathered. Autocast would cast them once more, and keep the whole
    model's copies from the forward to the backward pass.
    """
    if dtype == "float32" or getattr(module, _COMPUTE, None) is not None:
        return None
    return cast(torch.dtype, getattr(torch, dtype))


def inside(module: Any, work: Callable[..., T], *args: Any) -> T:
    """`work(*args)`, which calls parts of `module`, as one forward pass of it.

    A sharded module gathers its own weights (embeddings, last norm, head) around its forward pass
    only. For another module this is a plain call.
    """
    if is_sharded(module):
        result: T = getattr(module, _RUN)(work, *args)
        return result
    return work(*args)


def rounds(module: nn.Module, count: int) -> int:
    """How many passes every process makes, if this one has work for `count`. Ask before the first:
    the passes themselves exchange weights."""
    return round(distributed.largest(float(count))) if is_sharded(module) else count


@contextmanager
def whole(module: nn.Module) -> Iterator[None]:
    """Hold all weights in every process inside the block, for decoding: each token needs them all.

    Processes may compute as much as they like inside; nothing is exchanged.
    """
    if not is_sharded(module):
        yield
        return
    from torch.distributed.fsdp import FSDPModule

    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            part.set_reshard_after_forward(True, recurse=False)


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> float:
    """Scale the gradients down to `max_norm`; returns their norm before, that of all shards."""
    parameters = list(parameters)
    gradients = [p.grad for p in parameters if p.grad is not None]
    shards = [distributed.local(g) for g in gradients if distributed.is_shard(g)]
    if not shards:
        return float(nn.utils.clip_grad_norm_(parameters, max_norm))
    copies = [g for g in gradients if not distributed.is_shard(g)]
    squares = distributed.sum_over_all(_squares(shards)) + _squares(copies)
    norm = float(squares.sqrt())
    scale = min(1.0, max_norm / (norm + 1e-6))
    for gradient in (*shards, *copies):
        gradient.mul_(scale)
    return norm


def _squares(tensors: list[Tensor]) -> Tensor:
    device = tensors[0].device if tensors else None
    total = torch.zeros((), dtype=torch.float64, device=device)
    for tensor in tensors:
        total += tensor.float().square().sum(dtype=torch.float64)
    return total


def gather(module: nn.Module) -> dict[str, Tensor]:
    """All weights on the CPU of the first process, by name, tied ones once; nothing in the others.

    One tensor at a time is whole in the others.
    """
    weights: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, value in module.state_dict(keep_vars=True).items():
        if id(value) in seen:
            continue
        seen.add(id(value))
        tensor = distributed.whole(value.detach())
        if distributed.is_first():
            weights[name] = tensor.cpu()
    return weights
