"""How answers are laid out for a forward pass, so that little is computed twice or on padding.

Answers that begin alike share a row: `prefix | tail 1 | tail 2 | ...`. Position ids start again
after the prefix for each tail, and a tail sees the prefix and itself only, so every answer gets
the score it would get in a row of its own. Rows of like length make a micro-batch.

Shapes: R rows, L tokens in the longest row, A answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alignment.models import padding


@dataclass(frozen=True)
class Row:
    """`prefix` is common to all `tails`; `answers` are their numbers in the caller's order."""

    prefix: tuple[int, ...]
    tails: tuple[tuple[int, ...], ...]
    answers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prefix) + sum(len(tail) for tail in self.tails)


@dataclass(frozen=True)
class Block:
    """Queries [start, end) of a packed row; they see the keys [first, shared) and [own, end).

    `own` is `shared` where the two ranges follow one another.
    """

    start: int
    end: int
    first: int
    shared: int
    own: int

    def keys(self, row: Tensor) -> Tensor:
        """The block's keys out of (..., T)."""
        if self.own == self.shared:
            return row[..., self.first : self.end]
        seen = row[..., self.first : self.shared], row[..., self.own : self.end]
        return torch.cat(seen, dim=-1)

    def add(self, row: Tensor, gradient: Tensor) -> None:
        """Add a gradient of the block's keys (..., n) to (..., T)."""
        if self.own == self.shared:
            row[..., self.first : self.end] += gradient
        else:
            size = self.shared - self.first
            row[..., self.first : self.shared] += gradient[..., :size]
            row[..., self.own : self.end] += gradient[..., size:]


@dataclass(frozen=True)
class Plan:
    """All blocks of a packed row, and those that only the scored tokens need."""

    tokens: int
    all: tuple[Block, ...]
    scored: tuple[Block, ...]


@dataclass(frozen=True)
class Inputs:
    """Tensors of one forward pass; `positions` and `mask` are None where no row is shared, and
    only a packed layout has a `plan`.

    Attributes:
        ids: (R, L) int64, padded on the right.
        positions: (R, L) int64.
        mask: (R, 1, L, L) additive: 0 where a token may look, the dtype's minimum elsewhere.
        row, column: (A,) where each answer's last token stands.
        answers: (A,) the caller's numbers.
    """

    ids: Tensor
    positions: Tensor | None
    mask: Tensor | None
    row: Tensor
    column: Tensor
    answers: list[int]
    plan: Plan | None = None


@dataclass(frozen=True)
class Costs:
    """What decides whether sharing under a mask pays: a token costs `linear`, a pair of tokens in
    one row costs `attention` (any unit)."""

    linear: float = 1.0
    attention: float = 0.0

    def row(self, length: int, *, masked: bool) -> float:
        """Cost of one row. Without a mask the kernels skip the half above the diagonal."""
        return self.linear * length + self.attention * length * length * (1.0 if masked else 0.5)


def common_prefix(sequences: Sequence[tuple[int, ...]]) -> int:
    """Tokens that all sequences begin with; each keeps at least one token of its own."""
    first, last = min(sequences), max(sequences)
    limit = min(len(sequence) for sequence in sequences) - 1
    length = 0
    while length < limit and first[length] == last[length]:
        length += 1
    return length


def rows_of(
    sequences: Sequence[tuple[int, ...]],
    answers: Sequence[int],
    costs: Costs | None,
) -> list[Row]:
    """Rows for answers to one prompt: shared where that is cheaper, `costs=None` never shares."""
    alone = [Row((), (ids,), (n,)) for ids, n in zip(sequences, answers, strict=True)]
    if costs is None or len(sequences) < 2:
        return alone
    prefix = common_prefix(sequences)
    tail = sum(len(ids) - prefix for ids in sequences) / len(sequences)
    separate = sum(costs.row(len(row), masked=False) for row in alone) / len(alone)
    best, size = separate, 1
    for count in range(2, len(sequences) + 1):
        cost = costs.row(int(prefix + count * tail), masked=True) / count
        if cost < best:
            best, size = cost, count
    if size == 1:
        return alone
    rows = []
    # Chunks of equal size: 16 answers at 5 a row become 4 rows of 4.
    chunks = -(-len(sequences) // size)
    for chunk in np.array_split(np.arange(len(sequences)), chunks):
        group = [sequences[i] for i in chunk]
        start = common_prefix(group) if len(group) > 1 else 0
        rows.append(
            Row(
                group[0][:start],
                tuple(ids[start:] for ids in group),
                tuple(answers[i] for i in chunk),
            )
        )
    return rows


def assemble(
    rows: Sequence[Row],
    *,
    pad: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Inputs:
    """The tensors of one forward pass over `rows`, filled up with token `pad`."""
    width = max(len(row) for row in rows)
    ids = padding.pad([sum(row.tails, row.prefix) for row in rows], pad)
    shared = any(len(row.tails) > 1 for row in rows)
    positions = np.tile(np.arange(width), (len(rows), 1))
    segments = np.zeros((len(rows), width), dtype=np.int64)
    at_row, at_column, answers = [], [], []
    for r, row in enumerate(rows):
        place = len(row.prefix)
        for t, (tail, answer) in enumerate(zip(row.tails, row.answers, strict=True), start=1):
            end = place + len(tail)
            positions[r, place:end] = np.arange(len(row.prefix), len(row.prefix) + len(tail))
            # Padding goes on as part of the last tail: it sees something, nothing sees it.
            segments[r, place:] = t
            at_row.append(r)
            at_column.append(end - 1)
            answers.append(answer)
            place = end
        # No embedding is asked for a position beyond the row's longest answer.
        positions[r, place:] = 0 if shared else positions[r, place:]
    mask = None
    if shared:
        segment = torch.from_numpy(segments).to(device)
        seen = (segment[:, None, :] == segment[:, :, None]) | (segment[:, None, :] == 0)
        seen &= torch.ones(width, width, dtype=torch.bool, device=device).tril()
        mask = torch.zeros(seen.shape, dtype=dtype, device=device)
        mask.masked_fill_(~seen, torch.finfo(dtype).min)
        mask = mask[:, None]
    return Inputs(
        ids=ids.to(device),
        positions=torch.from_numpy(positions).to(device) if shared else None,
        mask=mask,
        row=torch.tensor(at_row, device=device),
        column=torch.tensor(at_column, device=device),
        answers=answers,
    )
