"""Ranks, sums and gathers for several processes that share one stage.

Every process runs the same stage on the same inputs. `share` splits the work, `sum_gradients` adds
the gradients, and `gather_rows` exchanges results, so all processes hold the same weights after
every step. `deal` and `claim` hand out whole pieces of work instead, each done as one process alone
would do it, so that its bits do not depend on the number of processes. Only the first process
writes outputs. In a single process every function is the identity.

`launcher` starts the processes; processes started by torchrun or accelerate can join too. On one
machine's CPU small messages go through `shared_memory`, others through gloo or NCCL.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from alignment.errors import ConfigError, StageError
from alignment.utils.files import digest_json

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from alignment.utils.shared_memory import Board

Item = TypeVar("Item")

RENDEZVOUS = "ALIGNMENT_RENDEZVOUS"
"""Environment variable that names the file through which the processes meet."""

# The launcher notices a dead peer; waiting for a slow one must never end in an error.
_PATIENCE = timedelta(days=7)
_BUCKET = 1 << 24

_board: Board | None = None


def _joined() -> bool:
    torch = sys.modules.get("torch")  # a process that has not imported it has joined nobody
    return torch is not None and torch.distributed.is_initialized()


def size() -> int:
    """Number of processes on this stage."""
    return int(sys.modules["torch"].distributed.get_world_size()) if _joined() else 1


def size_here() -> int:
    """Number of processes of this stage on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", size()))


def rank() -> int:
    """This process's number, from 0."""
    return int(sys.modules["torch"].distributed.get_rank()) if _joined() else 0


def is_first() -> bool:
    """Whether this is the process that writes."""
    return rank() == 0


def firsts_of_machines() -> list[int]:
    """The ranks of the processes that are the first on their machine, in order."""
    if not _joined():
        return [0]
    import torch

    flags = torch.zeros(size())
    flags[rank()] = float(int(os.environ.get("LOCAL_RANK", rank())) == 0)
    return [int(place) for place in sum_over_all(flags).nonzero()]


def join(device: str = "auto") -> None:
    """Join the process group, if the environment names more than one process.

    Args:
        device: as in `compute.device`; on GPUs each process takes the one of its local rank.

    Raises:
        ConfigError: there are fewer GPUs than processes.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world < 2 or _joined():
        return
    import torch

    backend = "gloo"
    if device != "cpu" and torch.cuda.is_available():
        here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", world)), torch.cuda.device_count()
        if here > gpus:  # NCCL cannot have two processes on one GPU
            raise ConfigError(
                f"{here} processes share a stage, and this machine has {gpus} GPUs",
                where="compute.processes",
                remedy=f"set compute.processes: {gpus}"
                + (" and compute.sharding: none" if gpus == 1 else ""),
            )
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"
    file = os.environ.get(RENDEZVOUS)
    torch.distributed.init_process_group(
        backend,
        init_method="env://" if file is None else Path(file).absolute().as_uri(),
        rank=int(os.environ["RANK"]),
        world_size=world,
        timeout=_PATIENCE,
    )
    if backend == "gloo":
        from alignment.utils.shared_memory import shared_board

        global _board
        _board = shared_board()


def leave() -> None:
    """Wait for all processes, then leave the group."""
    if _joined():
        import torch

        barrier()
        torch.distributed.destroy_process_group()
        global _board
        _board = None


def share(count: int) -> range:
    """This process's contiguous part of `count` items; the sizes of parts differ by at most 1."""
    return share_of(count, rank(), size())


def share_of(count: int, number: int, of: int) -> range:
    """Part `number` of `count` items in `of` contiguous parts."""
    return range(count * number // of, count * (number + 1) // of)


def deal(items: Sequence[Item]) -> Sequence[Item]:
    """This process's items of a list that is the same in all: one of every `size()`, in order."""
    return items[rank() :: size()]


def claim(
    items: Sequence[Item], done: Callable[[Item], bool], *, by_first: bool = False
) -> Sequence[Item]:
    """This process's items among those that are not `done`, for results that are kept on disk.

    All processes call it with the same items, and each says with `barrier` when its own are done.
    On a file server one may not see yet what another does: done is what all see.

    Args:
        by_first: the first process gets all of them.
    """
    missing = [0.0 if done(item) else 1.0 for item in items]
    if _joined() and items:
        import torch

        missing = sum_over_all(torch.tensor(missing)).tolist()
    left = [item for item, count in zip(items, missing, strict=True) if count]
    if by_first:
        return left if is_first() else []
    return deal(left)


def check_same(plan: Any, what: str) -> None:
    """Check that all processes have the same plan of work, before they deal it out.

    Raises:
        StageError: they do not.
    """
    if not _joined():
        return
    mark = float(int(digest_json(plan)[:12], 16))  # exact in float64
    if (largest(mark), -largest(-mark)) != (mark, mark):
        raise StageError(
            f"the processes cut {what} differently",
            remedy="run them on machines of one kind, or set compute.fast_cpu: off",
        )


def chunk(rows: int, number: int | None = None, of: int | None = None) -> tuple[int, int]:
    """First row of a process's part of a sharded tensor, and the first after it.

    As torch splits: all parts have the size of the first, and the last ones may be empty. By
    default it is this process's part.
    """
    number, of = (rank() if number is None else number), (size() if of is None else of)
    each = -(-rows // of)
    return min(number * each, rows), min((number + 1) * each, rows)


def is_shard(tensor: Tensor) -> bool:
    """Whether the tensor is this process's part of a sharded one (a DTensor)."""
    return hasattr(tensor, "placements")


def local(tensor: Tensor) -> Tensor:
    """This process's rows of a sharded tensor; any other tensor itself. A view either way."""
    rows: Any = tensor
    return rows.to_local() if is_shard(tensor) else rows  # type: ignore[no-any-return]


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor with all its rows, which all processes must ask for; any other itself."""
    rows: Any = tensor
    return rows.full_tensor() if is_shard(tensor) else rows  # type: ignore[no-any-return]


def like(parameter: Any, rows: Tensor) -> Tensor:
    """This process's rows of a tensor, as a tensor that is split as `parameter` is."""
    if not is_shard(parameter):
        return rows
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        rows,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def barrier() -> None:
    """Wait until all processes are here."""
    if not _joined():
        return
    import torch

    if _told(torch.zeros(1)) is None:
        torch.distributed.barrier()


def _told(message: Tensor) -> list[Tensor] | None:
    """All processes' messages, through shared memory; None where it does not serve."""
    if _board is None or message.device.type != "cpu":
        return None
    return _board.exchange(message)


def _add_up(tensor: Tensor) -> Tensor:
    """Replace it by the sum over all processes, the same to the bit in all of them."""
    import torch

    told = _told(tensor)
    if told is None:
        torch.distributed.all_reduce(tensor)
        return tensor
    torch.add(told[0], told[1], out=tensor)
    for other in told[2:]:
        tensor += other
    return tensor


def meet() -> None:
    """Wait until all processes are here, and leave the GPUs to others meanwhile: a process that
    waits in a `barrier` of NCCL keeps its GPU busy."""
    total(0.0)


def sum_over_all(tensor: Tensor) -> Tensor:
    """The sum of this tensor over all processes; a new tensor if there are several."""
    if not _joined():
        return tensor
    return _add_up(tensor.detach().clone())


def merged(values: np.ndarray) -> np.ndarray:
    """All processes' results in one array of which each filled a part and left 0 elsewhere."""
    if not _joined():
        return values
    import torch

    together: np.ndarray = sum_over_all(torch.from_numpy(values)).numpy()
    return together


def total(figure: float) -> float:
    """The sum of `figure` over all processes."""
    return totals({"figure": figure})["figure"]


def totals(figures: dict[str, float]) -> dict[str, float]:
    """The sum of each figure over all processes, which must all use the same names."""
    if not _joined():
        return figures
    import torch

    values = torch.tensor(list(figures.values()), dtype=torch.float64)
    return dict(zip(figures, sum_over_all(values).tolist(), strict=True))


def largest(figure: float) -> float:
    """The largest `figure` of all processes."""
    if not _joined():
        return figure
    import torch

    maximum = torch.tensor(figure, dtype=torch.float64)
    told = _told(maximum)
    if told is not None:
        return max(map(float, told))
    torch.distributed.all_reduce(maximum, torch.distributed.ReduceOp.MAX)
    return float(maximum)


def gather_rows(rows: Tensor, count: int) -> Tensor:
    """The rows of all processes, in order.

    Args:
        rows: (len(share(count)), ...) this process's rows; the other sizes are equal everywhere.
        count: number of rows in all processes together.

    Returns:
        (count, ...)
    """
    if not _joined():
        return rows
    import torch

    longest = max(len(share_of(count, number, size())) for number in range(size()))
    padded = rows.new_zeros((longest, *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = _told(padded)
    if parts is None:
        parts = [torch.empty_like(padded) for _ in range(size())]
        torch.distributed.all_gather(parts, padded)
    return torch.cat([part[: len(share_of(count, n, size()))] for n, part in enumerate(parts)])


def sum_gradients(
    parameters: Iterable[nn.Parameter], figures: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Replace each gradient by its sum over all processes; it stays None if no process has one.

    A small model's are one message: on some machines each takes milliseconds, whatever its size.

    Args:
        figures: to be summed too, in the gradients' precision; all processes use the same names.

    Returns:
        Their sums.
    """
    figures = dict(figures or {})
    if not _joined():
        return figures
    import torch

    # Those of a sharded parameter are summed as the backward pass goes on.
    learning = [p for p in parameters if p.requires_grad and not is_shard(p)]
    if not learning:
        return totals(figures)
    first = learning[0]
    present = [float(p.grad is not None) for p in learning]
    head = torch.tensor([*figures.values(), *present], dtype=first.dtype, device=first.device)
    sums: list[float] = []
    place = 0
    for bucket in _buckets(learning):
        parts = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket]
        flat = _add_up(torch.cat(parts if sums else [head, *parts]))
        if not sums:
            sums, flat = flat[: len(head)].tolist(), flat[len(head) :]
        exists = sums[len(figures) + place :]
        # Each bucket is freed before the next: all together are another copy of the gradients.
        for p, part, one in zip(
            bucket, flat.split([p.numel() for p in bucket]), exists, strict=False
        ):
            p.grad = part.view_as(p).clone() if one else None
        place += len(bucket)
    return dict(zip(figures, sums, strict=False))


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """In order, in groups of a limited size, which send many small tensors in one message without
    copying a whole large model."""
    bucket: list[nn.Parameter] = []
    filled = 0
    for parameter in parameters:
        if bucket and filled + parameter.numel() > _BUCKET:
            yield bucket
            bucket, filled = [], 0
        bucket.append(parameter)
        filled += parameter.numel()
    yield bucket
