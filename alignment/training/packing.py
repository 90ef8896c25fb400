"""Packs conversations into windows for supervised fine-tuning, and collates windows into batches.

Packed conversations must not attend to one another. So each has its own positions from 0, and
transformers' masks cut the attention wherever positions start again (`find_packed_sequence_indices`
in `masking_utils`), as long as no attention mask is given. Padding is on the right and continues
the positions: causal attention never reads it, and rows without packing keep the fast causal path.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import Any

import torch

from alignment.models import padding
from alignment.models.chat_renderer import Tokens

IGNORE = -100


Window = list[Tokens]
"""One training row: the conversations that share it."""


def pack(items: Sequence[Tokens], length: int, order: Sequence[int]) -> list[Window]:
    """Pack by best-fit decreasing: the longest first, each into the fullest window with room.

    Args:
        order: a permutation of the items, which breaks ties of length and orders the windows.
    """
    place = {index: position for position, index in enumerate(order)}
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free tokens, bin), sorted
    for index in sorted(order, key=lambda index: (-len(items[index]), place[index])):
        size = len(items[index])
        at = bisect.bisect_left(room, (size, -1))
        if at == len(room):
            bins.append([index])
            bisect.insort(room, (length - size, len(bins) - 1))
        else:
            free, number = room.pop(at)
            bins[number].append(index)
            bisect.insort(room, (free - size, number))
    bins.sort(key=lambda members: min(place[index] for index in members))
    return [[items[index] for index in members] for members in bins]


def singles(items: Sequence[Tokens], order: Sequence[int]) -> list[Window]:
    """One window per conversation, in the given order."""
    return [[items[index]] for index in order]


def row_of(window: Window) -> dict[str, list[int]]:
    """A window as a row for the trainer.

    Returns:
        `input_ids`, `labels` (the ids of answer tokens, EOS included, at their own position, and
        -100 elsewhere; the model shifts them) and `position_ids` (from 0 in each conversation).
    """
    ids: list[int] = []
    labels: list[int] = []
    positions: list[int] = []
    for item in window:
        # The first token of a conversation has no context of its own, so it is never a target.
        hidden = max(1, len(item.prompt))
        ids += item.ids
        labels += [IGNORE] * hidden + item.ids[hidden:]
        positions += range(len(item))
    return {"input_ids": ids, "labels": labels, "position_ids": positions}


def collate(rows: Sequence[dict[str, list[int]]], pad: int) -> dict[str, torch.Tensor]:
    """The rows of a micro-batch, padded on the right; each tensor is int64 (rows, longest)."""
    longest = max(len(row["input_ids"]) for row in rows)
    positions = []
    for row in rows:
        after = row["position_ids"][-1] + 1
        gap = longest - len(row["input_ids"])
        positions.append([*row["position_ids"], *range(after, after + gap)])
    return {
        "input_ids": padding.pad([row["input_ids"] for row in rows], pad),
        "labels": padding.pad([row["labels"] for row in rows], IGNORE),
        "position_ids": padding.pad(positions, 0),
    }


@torch.no_grad()
def isolates(model: Any, vocabulary: int) -> bool:
    """Try whether this architecture keeps packed conversations apart.

    The logits of a short random segment must be the same alone and behind another one in a row.
    """
    generator = torch.Generator().manual_seed(0)
    device = next(model.parameters()).device
    first, second = torch.randint(0, vocabulary, (2, 1, 6), generator=generator).to(device)
    positions = torch.arange(6, device=device).repeat(2)[None]
    training = model.training
    model.eval()
    try:
        both = model(
            input_ids=torch.cat([first, second], 1), position_ids=positions, use_cache=False
        ).logits
        alone = model(input_ids=second, use_cache=False).logits
    finally:
        model.train(training)
    scale = alone.float().std()
    return bool((both[:, 6:] - alone).float().abs().max() < 0.02 * scale)
