"""Several processes on one stage: who is who, and the few sums and gathers they need.

Every process runs the same stage on the same inputs. Work is cut by `share`, gradients meet in
`sum_gradients`, and what each found for its share becomes known to all by `gather_rows`; so all
hold the same weights after every step. Only the first process writes. A process that is alone
pays nothing: each function is then the identity.

`launcher` starts the processes; a stage process started by torchrun or accelerate joins as well.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

RENDEZVOUS = "ALIGNMENT_RENDEZVOUS"
"""Environment variable with the file through which the processes find one another."""

# A dead peer is noticed by the launcher; waiting for a slow one must never end in an error.
_PATIENCE = timedelta(days=7)
_BUCKET = 1 << 24


def _joined() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_initialized()


def size() -> int:
    """Processes on this stage; 1 when alone."""
    if not _joined():
        return 1
    import torch

    return torch.distributed.get_world_size()


def rank() -> int:
    """This process's number, from 0; the first one writes."""
    if not _joined():
        return 0
    import torch

    return torch.distributed.get_rank()


def is_first() -> bool:
    """Whether this process writes."""
    return rank() == 0


def join(device: str = "auto") -> None:
    """Meet the other processes, if the environment says that there are any.

    Args:
        device: as in `compute.device`; with GPUs each process takes the one of its local rank.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world < 2 or _joined():
        return
    import torch

    backend = "gloo"
    if device != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    file = os.environ.get(RENDEZVOUS)
    torch.distributed.init_process_group(
        backend,
        init_method="env://" if file is None else Path(file).absolute().as_uri(),
        rank=int(os.environ["RANK"]),
        world_size=world,
        timeout=_PATIENCE,
    )


def leave() -> None:
    """Part from the others, when all have come this far."""
    if _joined():
        import torch

        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def barrier() -> None:
    """Wait until every process has come this far."""
    if _joined():
        import torch

        torch.distributed.barrier()


def share(count: int) -> range:
    """Which of `count` things this process does: a contiguous part, sizes differ by at most 1."""
    return _share_of(count, rank(), size())


def _share_of(count: int, number: int, of: int) -> range:
    return range(count * number // of, count * (number + 1) // of)


def sum_over_all(tensor: Tensor) -> Tensor:
    """The sum of every process's tensor of this shape; a new tensor unless alone."""
    if not _joined():
        return tensor
    import torch

    total = tensor.detach().clone()
    torch.distributed.all_reduce(total)
    return total


def total(figure: float) -> float:
    """The sum of every process's figure."""
    if not _joined():
        return figure
    import torch

    return float(sum_over_all(torch.tensor(figure, dtype=torch.float64)))


def totals(figures: dict[str, float]) -> dict[str, float]:
    """Every figure's sum over all processes; the names must be the same everywhere."""
    if not _joined():
        return figures
    import torch

    values = torch.tensor(list(figures.values()), dtype=torch.float64)
    return dict(zip(figures, sum_over_all(values).tolist(), strict=True))


def largest(figure: float) -> float:
    """The largest of all processes' figures."""
    if not _joined():
        return figure
    import torch

    found = torch.tensor(figure, dtype=torch.float64)
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return float(found)


def gather_rows(mine: Tensor, count: int) -> Tensor:
    """Rows of all processes in order.

    Args:
        mine: (len(share(count)), ...) this process's rows; all but the first size equal everywhere.

    Returns:
        (count, ...)
    """
    if not _joined():
        return mine
    import torch

    longest = max(len(_share_of(count, number, size())) for number in range(size()))
    padded = mine.new_zeros((longest, *mine.shape[1:]))
    padded[: len(mine)] = mine
    parts = [torch.empty_like(padded) for _ in range(size())]
    torch.distributed.all_gather(parts, padded)
    return torch.cat([part[: len(_share_of(count, n, size()))] for n, part in enumerate(parts)])


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its sum over all processes; None stays where none has one."""
    if not _joined():
        return
    import torch

    learning = [parameter for parameter in parameters if parameter.requires_grad]
    if not learning:
        return
    device = learning[0].device
    flags = torch.tensor([p.grad is not None for p in learning], dtype=torch.float32, device=device)
    present = sum_over_all(flags).tolist()
    chosen = [p for p, known in zip(learning, present, strict=True) if known]
    while chosen:
        # Buckets: one message for many small tensors, no second copy of a large model.
        bucket: list[nn.Parameter] = []
        filled = 0
        while chosen and (not bucket or filled + chosen[0].numel() <= _BUCKET):
            filled += chosen[0].numel()
            bucket.append(chosen.pop(0))
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket]
        )
        torch.distributed.all_reduce(flat)
        for parameter, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            parameter.grad = part.view_as(parameter).clone()
