"""Small messages between the processes of one machine, through memory that they share.

Over sockets a process sleeps until the other's message is there, and to wake it takes milliseconds
on many machines, most of all virtual ones: longer than a small model's step. Here it looks at a
mark in shared memory until that changes. Whoever waits long sleeps between looks.

Only on Linux and x86-64, whose processors show stores to others in the order in which they were
made.
"""

from __future__ import annotations

import mmap
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alignment.utils.processes import runs

_ROOM = 4 << 20  # bytes of a message; larger ones take their time in any case
_MARK = 64  # bytes before it
_LOOK, _YIELD = 0.002, 0.02  # seconds of looking alone, and of letting others go first
_PAUSES = 0.001, 0.02  # seconds of sleep between looks after that, and after `_ALIVE`
_ALIVE = 1.0  # seconds after which to ask, each time, whether the others still run


class Board:
    """Where each process puts its message and reads the others'.

    Each has two places, used in turns: it can be one message ahead of the others, not two.
    """

    def __init__(self, memory: mmap.mmap, rank: int, pids: list[int]):
        size = _MARK + _ROOM
        flat = np.frombuffer(memory, dtype=np.uint8).reshape(len(pids), 2, size)
        self._marks = flat[..., :8].view(np.int64)
        self._places = torch.from_numpy(flat[..., _MARK:])
        self._rank, self._pids = rank, pids
        self._number = 0

    def exchange(self, message: Tensor) -> list[Tensor] | None:
        """All processes' messages, in the order of their ranks; valid until the next but one.

        Args:
            message: on the CPU; all processes give the same shape and type.

        Returns:
            None where it is too large, in all processes.

        Raises:
            RuntimeError: another process is gone.
        """
        length = message.numel() * message.element_size()
        if length > _ROOM:
            return None
        self._number += 1
        turn = self._number % 2
        messages = [
            place[turn, :length].view(message.dtype).view(message.shape) for place in self._places
        ]
        messages[self._rank].copy_(message)
        self._marks[self._rank, turn] = self._number
        for rank in range(len(messages)):
            self._wait(rank, turn)
        return messages

    def _wait(self, rank: int, turn: int) -> None:
        mark = self._marks[rank, turn]
        if mark[0] >= self._number:
            return
        began = time.perf_counter()
        asked = 0.0
        while mark[0] < self._number:
            waited = time.perf_counter() - began
            if waited < _LOOK:
                continue
            if waited < _YIELD:
                os.sched_yield()
                continue
            if waited - asked > _ALIVE:
                asked = waited
                if not runs(self._pids[rank], None):
                    raise RuntimeError(f"remote process exited: rank {rank}")
            time.sleep(_PAUSES[waited > _ALIVE])


def shared_board() -> Board | None:
    """A board for the processes of torch's group, which all call this; None where they cannot share
    memory: on several machines, on other processors, or where there are more than cores."""
    world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "0")) == world
    able = here and sys.platform == "linux" and platform.machine() == "x86_64"
    able = able and world <= len(os.sched_getaffinity(0))
    size = world * 2 * (_MARK + _ROOM)
    own = _made(size) if able and rank == 0 else -1
    told = torch.zeros(world, 2, dtype=torch.int64)
    told[rank, 0], told[rank, 1] = os.getpid(), own
    torch.distributed.all_reduce(told)
    pids, first = [int(pid) for pid in told[:, 0]], int(told[0, 1])
    memory = _mapped(Path(f"/proc/{pids[0]}/fd/{first}"), size) if able and first >= 0 else None
    count = torch.tensor(float(memory is not None))
    torch.distributed.all_reduce(count)
    if own >= 0:
        os.close(own)
    return None if memory is None or float(count) < world else Board(memory, rank, pids)


def _made(size: int) -> int:
    """A descriptor of memory without a name, which goes with its last user."""
    try:
        descriptor = os.memfd_create("align")
        os.ftruncate(descriptor, size)
    except OSError:
        return -1
    return descriptor


def _mapped(path: Path, size: int) -> mmap.mmap | None:
    try:
        with path.open("r+b") as file:
            return mmap.mmap(file.fileno(), size)
    except OSError:  # another user's, or in another container
        return None
