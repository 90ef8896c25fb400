"""Reward-model training beside TRL's RewardTrainer: same pairs, batch, length, margin, machine.

    python tests/benchmarks/reward_vs_trl.py --model DIR --data harmless.jsonl.gz

Each side runs in a process of its own, one after the other and in turns, so that neither the
other's memory nor a busy moment of the machine is counted for one side only. TRL runs with and
without gradient checkpointing (its default is with: less memory, slower).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from last_json import last_json

SIDES = ("ours", "trl", "trl_checkpointing")


def trl(options: argparse.Namespace, checkpointing: bool) -> dict[str, Any]:
    """TRL's trainer on the pairs that ours takes, already tokenised, in the same order."""
    import torch
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import RewardConfig, RewardTrainer

    from alignment.bench.conditions import peak_rss_mb
    from alignment.bench.reward import MARGIN, read_pairs
    from alignment.models.load import load_scalar, load_tokenizer

    tokenizer = load_tokenizer(options.model)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    elements = read_pairs(options.data, tokenizer, options.pairs, options.max_length)
    rows = [
        {
            "chosen_ids": list(element.sequences[0]),
            "rejected_ids": list(element.sequences[1]),
            "margin": MARGIN,
        }
        for element in elements
    ]
    torch.manual_seed(0)
    model = load_scalar(options.model)
    times: dict[str, float] = {}
    losses: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
            times["began"] = time.perf_counter()

        def on_train_end(self, *_args: Any, **_kwargs: Any) -> None:
            times["ended"] = time.perf_counter()

        def on_log(self, *_args: Any, logs: dict[str, float], **_kwargs: Any) -> None:
            if "loss" in logs:
                losses.append(float(logs["loss"]))

    class InOrder(RewardTrainer):
        def _get_train_sampler(self, *_args: Any, **_kwargs: Any) -> None:
            return None

    with tempfile.TemporaryDirectory() as folder:
        config = RewardConfig(
            output_dir=folder,
            per_device_train_batch_size=options.batch,
            num_train_epochs=1,
            learning_rate=1e-3,
            max_length=options.max_length,
            gradient_checkpointing=checkpointing,
            bf16=False,
            use_cpu=not torch.cuda.is_available(),
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            center_rewards_coefficient=None,
            pad_to_multiple_of=None,
        )
        trainer = InOrder(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[Clock()],
        )
        trainer.train()
    seconds = times["ended"] - times["began"]
    return {
        "pairs_per_s": round(options.pairs / seconds, 3),
        "first_loss": losses[0],
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }


def ours(options: argparse.Namespace) -> dict[str, Any]:
    """`align bench reward`."""
    from alignment.bench.reward import run

    return run(
        model=options.model,
        data=options.data,
        pairs=options.pairs,
        batch=options.batch,
        max_length=options.max_length,
    )


def main() -> None:
    """Run all sides in turns and print a table and one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", choices=SIDES)
    options = parser.parse_args()
    if options.only == "ours":
        print(json.dumps(ours(options)))
        return
    if options.only:
        print(json.dumps(trl(options, options.only == "trl_checkpointing")))
        return
    results: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(options.rounds):
        for side in SIDES:
            command = [sys.executable, *sys.argv, "--only", side]
            results[side].append(last_json(command))
    table = {}
    for side, runs in results.items():
        table[side] = {
            "pairs_per_s": statistics.median(run["pairs_per_s"] for run in runs),
            "first_loss": runs[0]["first_loss"],
            "peak_rss_mb": max(run["peak_rss_mb"] for run in runs),
        }
        figures = table[side]
        print(
            f"{side:18} {figures['pairs_per_s']:8.2f} pairs/s  first loss "
            f"{figures['first_loss']:.6f}  {figures['peak_rss_mb']:8.1f} MiB"
        )
    ratio = table["ours"]["pairs_per_s"] / table["trl"]["pairs_per_s"]
    print(json.dumps({**table, "times_trl": round(ratio, 2)}))


if __name__ == "__main__":
    main()
