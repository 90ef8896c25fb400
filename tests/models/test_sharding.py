"""Sharded models take the steps of whole ones, on any number of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import sharded_child
import torch
from model_helpers import CHATML, bytes_tokenizer, tiny_model
from safetensors.torch import load_file

from alignment.models.load import save_model
from alignment.utils.metrics_log import Series

SFT = ("llama", "gemma3", "gpt_neox")  # llama: tied embeddings
CASES = [
    *(f"sft/{family}/full" for family in SFT),
    "sft/qwen2/lora",
    "reward/llama/full",
    "reward/qwen2/lora",
]
BEGUN_WHOLE = ("sft/llama/full", "reward/llama/full")
RESUMED = ("reward/llama/full", "sft/qwen2/dropout")
ROUNDED = ("sft/llama/bfloat16", "reward/llama/bfloat16")


def run(root: Path, processes: int, cases: list[str]) -> None:
    """Train `cases` in so many processes; one trains here."""
    if processes == 1:
        sharded_child.main(root, cases)
        return
    launcher = [sys.executable, "-m", "alignment.execution.launcher", str(processes)]
    subprocess.run(
        [*launcher, "sharded_child", str(root), *cases],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints, and what one and two processes made of them."""
    root = tmp_path_factory.mktemp("sharding")
    for family in (*SFT, "qwen2"):
        save_model(tiny_model(family), bytes_tokenizer(CHATML), root / family)
    run(root, 1, [*CASES, *ROUNDED, *(f"{case}/2/shards" for case in BEGUN_WHOLE)])
    # Two steps, then the rest in another way: resumed to the same bits.
    parts = [f"{case}/{rest}/parts" for case in RESUMED for rest in ("2", "")]
    split = (f"{case}//shards" for case in BEGUN_WHOLE)
    run(root, 2, [*CASES, *ROUNDED, *RESUMED[1:], *parts, "reward/llama/full/2/fewer", *split])
    run(root, 1, ["reward/llama/full//fewer"])
    return root


def weights(root: Path, processes: int | str, case: str) -> dict[str, torch.Tensor]:
    folder = root / str(processes) / case.replace("/", "-")
    if not case.startswith("sft"):
        return load_file(folder / "w.safetensors")
    [stored] = (folder / "model").glob("*.safetensors")
    return load_file(stored)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_take_the_steps_of_one(root: Path, case: str) -> None:
    name = case.replace("/", "-")
    one, two = (Series(root / str(n) / name / "series.jsonl").rows() for n in (1, 2))
    assert len(one) == len(two) == 5
    norm = "grad_norm" if case.startswith("sft") else "gradient_norm"
    for figure in ("loss", norm):
        assert two[0][figure] == pytest.approx(one[0][figure], rel=1e-5), figure
    left, right = weights(root, 1, case), weights(root, 2, case)
    assert left.keys() == right.keys()
    for key, tensor in left.items():
        torch.testing.assert_close(right[key], tensor, atol=1e-4, rtol=0, msg=key)


@pytest.mark.parametrize("case", ROUNDED)
def test_in_bfloat16_too_up_to_its_rounding(root: Path, case: str) -> None:
    name, exact = case.replace("/", "-"), case.replace("bfloat16", "full")
    one, two = (Series(root / str(n) / name / "series.jsonl").rows() for n in (1, 2))
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-2)
    alone, shared, float32 = (
        torch.cat([tensor.flatten() for _, tensor in sorted(weights(root, n, each).items())])
        for n, each in ((1, case), (2, case), (2, exact))
    )
    # As far from each other as from float32, and no farther: rounding, not another step.
    assert 0 < (shared - float32).abs().mean() < 2 * (alone - float32).abs().mean()


@pytest.mark.parametrize("case", RESUMED)
def test_resumed_on_as_many_processes_it_ends_in_the_same_bits(root: Path, case: str) -> None:
    whole, parts = (weights(root, name, case) for name in (2, "parts"))
    assert all(torch.equal(tensor, parts[key]) for key, tensor in whole.items())


@pytest.mark.parametrize("case", BEGUN_WHOLE)
def test_begun_whole_and_resumed_in_shards_it_ends_nearly_the_same(root: Path, case: str) -> None:
    whole, split = (weights(root, name, case) for name in (2, "shards"))
    for key, tensor in whole.items():
        torch.testing.assert_close(split[key], tensor, atol=1e-4, rtol=0, msg=key)


def test_resumed_on_fewer_processes_it_ends_nearly_the_same(root: Path) -> None:
    whole, fewer = (weights(root, name, "reward/llama/full") for name in (2, "fewer"))
    for key, tensor in whole.items():
        torch.testing.assert_close(fewer[key], tensor, atol=1e-4, rtol=0, msg=key)
