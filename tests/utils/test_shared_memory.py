"""Messages through shared memory: each arrives whole and in time, and nobody waits for the dead."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from alignment.utils import shared_memory
from alignment.utils.shared_memory import _MARK, _ROOM, Board


def boards(pids: list[int]) -> list[Board]:
    memory = mmap.mmap(-1, len(pids) * 2 * (_MARK + _ROOM))
    return [Board(memory, rank, pids) for rank in range(len(pids))]


def test_every_message_arrives_whole() -> None:
    """Of changing shapes and types, some after a wait on one side or the other."""

    def message(rank: int, number: int) -> torch.Tensor:
        kind = (torch.float32, torch.float64, torch.int64)[number % 3]
        shape = ((), (7,), (3, number + 1))[number % 3]
        return torch.full(shape, 100 * number + rank, dtype=kind)

    def talk(board: Board, rank: int) -> int:
        right = 0
        for number in range(300):
            if number % 100 == 50 * rank:
                shared_memory.time.sleep(0.06)  # the others sleep between looks by then
            found = board.exchange(message(rank, number))
            assert found is not None
            right += all(torch.equal(found[other], message(other, number)) for other in range(3))
        return right

    three = boards([os.getpid()] * 3)
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(talk, three, range(3))) == [300] * 3


def test_what_does_not_fit_goes_another_way() -> None:
    (board,) = boards([os.getpid()])
    assert board.exchange(torch.zeros(_ROOM // 4 + 1)) is None
    fits = board.exchange(torch.ones(_ROOM // 4))
    assert fits is not None
    assert float(fits[0].sum()) == _ROOM // 4


def test_nobody_waits_for_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "_ALIVE", 0.05)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    board, _ = boards([os.getpid(), gone.pid])
    with pytest.raises(RuntimeError, match="remote process exited: rank 1"):
        board.exchange(torch.zeros(1))
