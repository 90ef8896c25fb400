"""The model a reward model starts as: a chat checkpoint with a fresh scalar head."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import PreTrainedModel

from alignment.models.load import is_adapter, load_policy, load_scalar, load_tokenizer, save_model


def initial_model(
    start: Path, scratch: Path, *, seed: int, device: torch.device | str = "cpu"
) -> PreTrainedModel:
    """`start` with one output instead of the vocabulary; the head is drawn from `seed`.

    Weights are float32 whatever the compute format: updates of 1e-5 vanish in bfloat16. An
    adapter is merged into its base first, by way of `scratch`.
    """
    if is_adapter(start):
        merged = scratch / "merged"
        shutil.rmtree(merged, ignore_errors=True)
        save_model(load_policy(start), load_tokenizer(start), merged)
        start = merged
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return load_scalar(start, device=device)
