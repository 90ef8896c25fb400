"""Trains checkpoints, sharded where there are several processes.

`python -m sharded_child ROOT CASE…`, with cases such as `sft/llama/full`: a kind of training, a
family, and `full`, `bfloat16`, `lora` or `dropout`. ROOT/FAMILY holds the checkpoints; ROOT/N/CASE
gets curve, weights and checkpoints for N processes. A case that ends in `/2` trains two steps only,
so that another run goes on from there.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from model_helpers import CHATML, bytes_tokenizer
from reward_helpers import random_elements
from safetensors.torch import save_file
from sft_helpers import examples, settings, tune

from alignment.config.lora import LoraConfig
from alignment.config.rewards import RewardsConfig
from alignment.models import enough_steps
from alignment.models.load import Dtype
from alignment.models.sharding import autocast_format, gather, is_sharded, shard
from alignment.rewards.adapter import inject
from alignment.rewards.initial import initial_model
from alignment.rewards.train import train
from alignment.training.policy import save_policy, trainable_policy
from alignment.utils import distributed
from alignment.utils.metrics_log import Series


def sft(
    start: Path, target: Path, lora: LoraConfig | None, dtype: Dtype, steps: int | None
) -> None:
    """Five steps of fine-tuning, in batches that two processes cannot halve; the last is short."""
    model = trainable_policy(start, lora, dtype=dtype, seed=3, sharded=distributed.size() > 1)
    config = settings(packing=False, batch=5, epochs=1, lora=lora)
    half = _autocast(model, dtype) is not None
    stop = _stop_after(steps) if steps else None
    try:
        tune(target, config, model, rows=examples(22), bf16=half, progress=stop)
    except KeyboardInterrupt:
        return
    save_policy(model, bytes_tokenizer(CHATML), target / "model", start=start)


def _autocast(model: Any, dtype: Dtype) -> torch.dtype | None:
    """Shards round their own weights: autocast would keep a second copy of them all."""
    found = autocast_format(model, dtype)
    assert found is None or not is_sharded(model)
    return found


def reward(
    start: Path, target: Path, lora: LoraConfig | None, dtype: Dtype, steps: int | None
) -> None:
    """Five steps on 21 rankings of three: processes have different numbers of micro-batches."""
    several = distributed.size() > 1
    model = initial_model(start, target, seed=1, dtype=dtype, sharded=several and lora is None)
    if lora is not None:
        inject(model, lora, seed=2)
        if several:
            shard(model)
    config = RewardsConfig(
        batch=5,
        learning_rate=1e-3,
        max_length=64,
        checkpoint_every=1,
        lora=lora,
        max_tokens_per_micro_batch=128,
    )
    series = Series(target / "series.jsonl") if distributed.is_first() else None
    stop = _stop_after(steps) if steps else None
    try:
        with patch.object(enough_steps, "FEWEST", 1):
            train(
                model,
                random_elements(21, answers=3),
                config,
                pad=0,
                seed=5,
                checkpoints=target / "checkpoints",
                series=series,
                progress=stop,
                auxiliary_weight=0.5,
                amp=_autocast(model, dtype),
            )
    except KeyboardInterrupt:
        return
    weights = gather(model) if is_sharded(model) else model.state_dict()
    if distributed.is_first():
        save_file({n: t.contiguous().clone() for n, t in weights.items()}, target / "w.safetensors")


def _stop_after(steps: int) -> object:
    from alignment.utils.progress import SilentProgress

    class Stop(SilentProgress):
        done = 0

        def advance(self, count: int = 1, **figures: float) -> None:
            # The first call tells what is done already; a checkpoint follows each step's call.
            self.done += bool(figures)
            if self.done > steps:
                raise KeyboardInterrupt

    return Stop()


def main(root: Path, cases: list[str]) -> None:
    torch.set_num_threads(1)
    distributed.join("cpu")
    for case in cases:
        kind, family, method, *rest = case.split("/")
        name = "-".join((kind, family, method))
        target = root / f"{rest[1] if len(rest) > 1 else distributed.size()}" / name
        target.mkdir(parents=True, exist_ok=True)
        drops = {"lora": 0.0, "dropout": 0.2}
        lora = LoraConfig(r=4, dropout=drops[method]) if method in drops else None
        dtype: Dtype = "bfloat16" if method == "bfloat16" else "float32"
        steps = int(rest[0]) if rest and rest[0] else None
        (sft if kind == "sft" else reward)(root / family, target, lora, dtype, steps)
    if distributed.is_first():
        (root / f"done-{distributed.size()}").write_text(json.dumps(cases))
    distributed.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
