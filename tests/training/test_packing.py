"""Windows of conversations that do not see one another."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from model_helpers import FAMILIES, tiny_model

from alignment.models.chat_renderer import Tokens
from alignment.training.packing import IGNORE, collate, isolates, pack, row_of, singles


def items(count: int, seed: int = 0, longest: int = 20) -> list[Tokens]:
    rng = random.Random(seed)
    return [
        Tokens(
            [rng.randrange(3, 400) for _ in range(rng.randint(1, longest))],
            [rng.randrange(3, 400) for _ in range(rng.randint(1, longest))],
        )
        for _ in range(count)
    ]


def test_every_item_is_packed_once_and_nothing_overflows() -> None:
    rows = items(200)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1)).tolist()
    windows = pack(rows, 64, order)
    assert all(sum(map(len, window)) <= 64 for window in windows)
    packed = sorted(id(item) for window in windows for item in window)
    assert packed == sorted(id(item) for item in rows)
    fullest = sum(len(item) for item in rows) / 64
    assert len(windows) < 1.05 * fullest + 1
    assert pack(rows, 64, order) == windows
    assert pack(rows, 64, order[::-1]) != windows


def test_best_fit_by_hand() -> None:
    sizes = [6, 5, 5, 4, 3, 1]
    rows = [Tokens([1], [2] * (size - 1)) for size in sizes]
    windows = pack(rows, 10, list(range(6)))
    # 6; 5 opens a second, the other 5 fills it; 4 fills the first; 3 and 1 share a third.
    assert [[len(item) for item in window] for window in windows] == [[6, 4], [5, 5], [3, 1]]


def test_rows_by_hand() -> None:
    row = row_of(singles([Tokens([5, 6], [7, 2])], [0])[0])
    assert row == {
        "input_ids": [5, 6, 7, 2],
        "labels": [IGNORE, IGNORE, 7, 2],
        "position_ids": [0, 1, 2, 3],
    }
    two = pack([Tokens([5, 6], [7, 2]), Tokens([], [8, 2])], 8, [0, 1])[0]
    batch = collate([row_of(two), row], pad=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 2, 8, 2], [5, 6, 7, 2, 0, 0]]
    # An answer without a prompt has no token that could predict its first one.
    assert batch["labels"].tolist() == [
        [IGNORE, IGNORE, 7, 2, IGNORE, 2],
        [IGNORE, IGNORE, 7, 2, IGNORE, IGNORE],
    ]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1], [0, 1, 2, 3, 4, 5]]


def loss_sum(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    logits = model(
        input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False
    ).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="sum"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_conversations_do_not_see_one_another(family: str) -> None:
    model = tiny_model(family)
    assert isolates(model, 400)
    rows = items(12, seed=3)
    windows = pack(rows, 70, list(range(12)))
    assert len(windows) < 12
    with torch.no_grad():
        packed = loss_sum(model, collate([row_of(window) for window in windows], pad=0))
        alone = sum(loss_sum(model, collate([row_of(w)], pad=0)) for w in singles(rows, range(12)))
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-3)


def test_a_leaking_architecture_is_found_out() -> None:
    class Leaking(torch.nn.Module):
        """Sums up all that came before, whatever the positions say."""

        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(400, 400)

        def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
            found = type("Output", (), {})()
            found.logits = self.embed(input_ids).cumsum(1)
            return found

    assert not isolates(Leaking(), 400)
