"""Float32 masters under a module that computes in bfloat16."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_helpers import tiny_model
from torch import nn

from alignment.models.load import load_policy
from alignment.models.master_weights import MasterWeights
from alignment.models.update_share import UpdateShare, lost_updates

START = 1.0
SMALL = 1e-3  # a bfloat16 at 1 has steps of 2⁻⁷ above and 2⁻⁸ below: such a change is rounded away


def layer() -> nn.Linear:
    one = nn.Linear(1, 1, bias=False)
    nn.init.constant_(one.weight, START)
    return one


def test_small_steps_add_up_in_the_masters() -> None:
    module = layer()
    masters = MasterWeights(module, torch.bfloat16)
    optimizer = torch.optim.SGD(masters.parameters(), lr=SMALL)
    for _ in range(10):
        module(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
        assert module.weight.grad is None
        optimizer.step()
        optimizer.zero_grad()
        masters.publish()
    [master] = masters.parameters()
    assert master.item() == pytest.approx(START - 10 * SMALL, abs=1e-6)
    # The nearest bfloat16 to 0.99; without masters it would still be 1.
    assert module.weight.item() == 0.98828125
    assert module.weight.dtype == torch.bfloat16
    masters.return_to(module)
    assert module.weight.item() == master.item()
    assert module.weight.dtype == torch.float32


def test_gradients_of_micro_batches_add_up_in_float32() -> None:
    module = layer()
    masters = MasterWeights(module, torch.bfloat16)
    inputs = [256.0, 1.0, 1.0]  # 257 and 258 have no bfloat16 next to 256: it would stay
    for value in inputs:
        module(torch.full((1, 1), value, dtype=torch.bfloat16)).sum().backward()
    [master] = masters.parameters()
    assert master.grad is not None
    assert master.grad.item() == 258.0


def test_tied_weights_have_one_master() -> None:
    first, second = layer(), layer()
    second.weight = first.weight
    both = nn.Sequential(first, second)
    masters = MasterWeights(both, torch.bfloat16)
    both(torch.ones(1, 1, dtype=torch.bfloat16)).sum().backward()
    [master] = masters.parameters()
    assert master.grad is not None
    assert master.grad.item() == 2.0
    masters.return_to(both)
    assert both[0].weight is both[1].weight


def test_the_share_that_a_step_changes() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 1.0, 1e-3, 5.0]))
    update = UpdateShare([weight])
    weight.grad = torch.tensor([1e-9, 1.0, 1e-9, 0.0])  # the first is under half an ulp of 1
    update.before_step()
    with torch.no_grad():
        weight -= weight.grad
    assert update.after_step() == pytest.approx(2 / 3)  # the last asks for nothing
    assert lost_updates(2 / 3) is None
    assert "33%" in (lost_updates(1 / 3) or "")
    weight.grad = None
    update.before_step()
    assert update.after_step() == 1.0


def test_positions_are_those_of_a_model_that_was_loaded_in_bfloat16(tmp_path: Path) -> None:
    """Rounded rotary frequencies would be off by radians at late positions."""
    tiny_model("llama").save_pretrained(tmp_path)
    loaded = load_policy(tmp_path, dtype="bfloat16")
    whole = load_policy(tmp_path)
    masters = MasterWeights(whole, torch.bfloat16)
    ids = torch.arange(1, 201)[None]
    with torch.no_grad():
        assert torch.equal(whole(input_ids=ids).logits, loaded(input_ids=ids).logits)
    masters.return_to(whole)
    assert {value.dtype for value in (*whole.parameters(), *whole.buffers())} == {torch.float32}
