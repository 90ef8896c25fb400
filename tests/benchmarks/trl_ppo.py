"""TRL 1.12.0's PPO on the same work as `align bench ppo`: one JSON line.

Run with an interpreter that has trl==1.12.0, the last release with a PPO trainer:

    python tests/benchmarks/trl_ppo.py --model DIR --prompts prompts.json --batch 64 \
        --new-tokens 48 --epochs 4

`prompts.json` is a list of lists of token ids, one per episode (see ppo_vs_trl.py).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", required=True)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=None)
    given = parser.parse_args()

    import torch
    import trl
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    if given.threads:
        torch.set_num_threads(given.threads)
    prompts = json.loads(Path(given.prompts).read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(given.model, padding_side="left")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token

    def language() -> torch.nn.Module:
        return AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.float32)

    def scalar() -> torch.nn.Module:
        return AutoModelForSequenceClassification.from_pretrained(
            given.model, num_labels=1, dtype=torch.float32
        )

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as directory:
        config = PPOConfig(
            output_dir=directory,
            per_device_train_batch_size=given.batch,
            gradient_accumulation_steps=1,
            num_mini_batches=1,
            num_ppo_epochs=given.epochs,
            total_episodes=len(prompts),
            local_rollout_forward_batch_size=given.batch,
            response_length=given.new_tokens,
            num_sample_generations=0,
            temperature=1.0,
            learning_rate=1e-6,
            save_strategy="no",
            report_to=[],
            bf16=False,
            fp16=False,
            use_cpu=device == "cpu",
            gradient_checkpointing=False,
        )
        rows = Dataset.from_list([{"input_ids": ids} for ids in prompts])
        policy = language()
        # Every episode has exactly `new_tokens` tokens: an end token that never comes.
        policy.generation_config.eos_token_id = None
        trainer = PPOTrainer(
            args=config,
            processing_class=tokenizer,
            model=policy,
            ref_model=language(),
            reward_model=scalar(),
            value_model=scalar(),
            train_dataset=rows,
            eval_dataset=rows.select(range(min(len(rows), given.batch))),
        )
        began, cpu = time.perf_counter(), time.process_time()
        trainer.train()
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(
        json.dumps(
            {
                "bench": "ppo",
                "implementation": f"trl {trl.__version__}",
                "episodes": len(prompts),
                "episodes_per_s": round(len(prompts) / wall, 3),
                "seconds": round(wall, 3),
                "cpu_seconds": round(cpu, 3),
                "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
                "threads": torch.get_num_threads(),
                "device": device,
            }
        )
    )


if __name__ == "__main__":
    main()
