"""What each process of `test_distributed` does: `python -m distributed_child FILE MODE`."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch

from alignment.errors import StageError
from alignment.utils import distributed


def main(target: Path, mode: str) -> None:
    distributed.join("cpu")
    rank = distributed.rank()
    if mode == "fail" and rank == 1:
        sys.exit(7)
    if mode == "sockets":
        distributed._board = None
    elif mode != "work":
        Path(f"{target}.{rank}").write_text(str(os.getpid()))
        time.sleep(60)
    mine = distributed.share(5)
    rows = torch.tensor([[float(i), float(i) ** 2] for i in mine]).reshape(len(mine), 2)
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    weights[0].grad = torch.full((2,), rank + 1.0)
    if rank == 1:
        weights[1].grad = torch.tensor([1.0, 2.0])
    distributed._BUCKET = 4  # three weights of 2 are two messages
    figures = distributed.sum_gradients(weights, {"loss": rank + 0.5, "one": 1.0})
    found = {
        "shared": distributed._board is not None,
        "largest": distributed.largest(rank - 0.5),
        "size": distributed.size(),
        "shares": distributed.total(len(mine)),
        "rows": distributed.gather_rows(rows, 5).tolist(),
        "figures": figures,
        "gradients": [None if w.grad is None else w.grad.tolist() for w in weights],
        # Each sees another of the items done: none may be left to nobody.
        "claimed": distributed.total(sum(distributed.claim([1, 2, 4, 8], [1, 2][rank].__eq__))),
        "sum": distributed.sum_over_all(torch.tensor([1.0, rank])).tolist(),
    }
    distributed.check_same([[1], [2, 3]], "this")
    try:
        distributed.check_same([rank], "that")
    except StageError as error:
        found["differs"] = error.message
    Path(f"{target}.{rank}").write_text(json.dumps(found))
    distributed.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
