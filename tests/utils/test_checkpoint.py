"""Exact checkpoints: everything comes back, and a broken write never counts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alignment.utils import checkpoint
from alignment.utils.checkpoint import TrainingState


class Tied(torch.nn.Module):
    """Tied weights, a buffer, and a parameter that is a view's neighbour."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(7, 3)
        self.head = torch.nn.Linear(3, 7, bias=False)
        self.head.weight = self.embed.weight
        self.norm = torch.nn.BatchNorm1d(7)
        self.empty = torch.nn.Parameter(torch.zeros(0))
        self.register_buffer("part", self.embed.weight.detach()[:1])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.norm(self.head(torch.dropout(self.embed(ids), 0.3, True)))


def parts(seed: int, kind: str) -> tuple[Tied, TrainingState]:
    torch.manual_seed(seed)
    model = Tied()
    optimizers: dict[str, Any] = {
        "adamw": lambda: torch.optim.AdamW(model.parameters(), lr=0.01, fused=True, amsgrad=True),
        "sgd": lambda: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
    }
    optimizer = optimizers[kind]()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
    return model, TrainingState({"model": model}, {"one": optimizer}, {"rate": scheduler})


def step(model: Tied, state: TrainingState) -> list[float]:
    ids = torch.randint(0, 7, (5,))
    loss = model(ids).pow(2).sum() * (1 + random.random()) * (1 + np.random.rand())
    loss.backward()
    state.optimizers["one"].step()
    state.schedulers["rate"].step()
    state.optimizers["one"].zero_grad()
    return [loss.item(), np.random.randn(), float(torch.rand(()))]


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_going_on_equals_never_having_stopped(kind: str, tmp_path: Path) -> None:
    model, state = parts(1, kind)
    random.seed(1)
    np.random.seed(1)
    for _ in range(3):
        step(model, state)
    np.random.randn()  # leaves a cached second Gaussian, part of the state
    state.extra = {"order": [3, 1, 2], "beta": 0.1}
    state.tensors = {"moments": torch.arange(3.0)}
    checkpoint.save(tmp_path, 3, state)
    expected = [step(model, state) for _ in range(4)]

    other, restored = parts(2, kind)
    step(other, restored)
    assert checkpoint.load(tmp_path, restored) == 3
    assert restored.extra == {"order": [3, 1, 2], "beta": 0.1}
    assert torch.equal(restored.tensors["moments"], torch.arange(3.0))
    assert other.head.weight is other.embed.weight
    assert [step(other, restored) for _ in range(4)] == expected
    for (name, ours), theirs in zip(
        model.state_dict().items(), other.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


def test_only_the_newest_are_kept_and_partial_ones_ignored(tmp_path: Path) -> None:
    _, state = parts(1, "sgd")
    assert checkpoint.latest(tmp_path) is None
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path, state)
    for number in (999_999, 1_000_000, 1_000_001):  # seven digits sort after six
        checkpoint.save(tmp_path, number, state, keep=2)
    assert checkpoint.latest(tmp_path) == 1_000_001
    assert {path.name for path in tmp_path.iterdir()} == {"step-1000000", "step-1000001"}
    (tmp_path / ".step-2000000.partial").mkdir()
    assert checkpoint.latest(tmp_path) == 1_000_001
    checkpoint.save(tmp_path, 1_000_001, state)  # the same step again
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-1000001"]


def test_no_pickle_is_written(tmp_path: Path) -> None:
    _, state = parts(1, "adamw")
    checkpoint.save(tmp_path, 1, state)
    assert {path.suffix for path in (tmp_path / "step-000001").iterdir()} == {
        ".safetensors",
        ".json",
    }


def test_what_two_names_share_is_written_under_both(tmp_path: Path) -> None:
    one, other = (torch.nn.Linear(2, 2, bias=False) for _ in range(2))
    other.weight = one.weight
    whole = one.weight.detach()
    tensors = {"as": whole, "turned": whole.view(4)}
    modules: dict[str, torch.nn.Module] = {"one": one, "other": other}
    checkpoint.save(tmp_path, 1, TrainingState(modules, tensors=tensors))
    expected = whole.clone()
    one.weight.data.zero_()
    state = TrainingState(modules)
    checkpoint.load(tmp_path, state)
    assert torch.equal(other.weight, expected)
    assert torch.equal(state.tensors["turned"], expected.view(4))
