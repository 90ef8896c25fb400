"""Reward models on real HH comparisons: held-out accuracy, ours beside TRL's RewardTrainer.

    python tests/benchmarks/reward_hh.py --model DIR --data DIR --out results

`--data` holds `helpful.jsonl.gz` and `harmless.jsonl.gz`. Cross-validation by the conversation's
opening: each comparison is measured once by a model that never saw its prompt. Both sides get the
same token ids, number of epochs, batch, schedule, AdamW settings and first head; they shuffle by
themselves. Every (fold, domain, side) is a file in `--out`, so that a broken run goes on and
several can share the work; the table is over what is there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alignment.config.intake import IntakeConfig
from alignment.config.rewards import MARGINS, RewardsConfig
from alignment.config.vocabulary import DOMAINS
from alignment.models.chat_renderer import ChatRenderer, Tokens
from alignment.models.load import load_scalar, load_tokenizer
from alignment.models.optimizer import make_schedule, warmup_steps
from alignment.preferences.intake import ingest
from alignment.preferences.schema import Comparison
from alignment.preferences.store import PreferenceStore
from alignment.rewards.card import RewardCard
from alignment.rewards.examples import Element, build
from alignment.rewards.model import RewardModel
from alignment.rewards.train import train
from alignment.utils.files import atomic_write_json, read_json
from alignment.utils.statistics import bootstrap_mean

SIDES = ("ours", "trl")


def fold_of(row: Comparison, folds: int) -> int:
    """Which fold a comparison is held out in: by its first user turn."""
    opening = next(turn["content"] for turn in row.conversation if turn["role"] == "user")
    return int(hashlib.sha256(opening.encode()).hexdigest(), 16) % folds


def read(data: Path, domain: str) -> list[Comparison]:
    """All sound comparisons of a domain, through the same intake as any delivery."""
    with tempfile.TemporaryDirectory() as folder:
        store = PreferenceStore(Path(folder))
        name = {"helpfulness": "helpful", "safety": "harmless"}[domain]
        config = IntakeConfig(heldout_share=0.0)
        report = ingest(store, [data / f"{name}.jsonl.gz"], config, domain=domain)  # type: ignore[arg-type]
        return store.training([report.id])


def train_trl(model: Any, elements: list[Element], settings: RewardsConfig, pad: Any) -> None:
    """TRL's trainer with our settings."""
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    rows = [
        {"chosen_ids": list(e.sequences[p.chosen]), "rejected_ids": list(e.sequences[p.rejected])}
        for e in elements
        for p in e.pairs
    ]
    steps = -(-len(rows) // settings.batch) * settings.epochs

    class SameRate(RewardTrainer):
        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            self.lr_scheduler = make_schedule(
                optimizer or self.optimizer,
                steps=steps,
                warmup=warmup_steps(steps, settings.warmup_ratio, settings.warmup_steps),
                min_lr_ratio=settings.min_lr_ratio,
            )
            return self.lr_scheduler

    with tempfile.TemporaryDirectory() as folder:
        config = RewardConfig(
            output_dir=folder,
            per_device_train_batch_size=settings.batch,
            num_train_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            max_length=settings.max_length,
            adam_beta1=settings.optimizer.betas[0],
            adam_beta2=settings.optimizer.betas[1],
            adam_epsilon=settings.optimizer.adam_epsilon,
            weight_decay=settings.optimizer.weight_decay,
            max_grad_norm=settings.optimizer.max_grad_norm,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=settings.batch,
        )
        SameRate(
            model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=pad
        ).train()


def unit(options: argparse.Namespace, fold: int, domain: str, side: str) -> dict[str, Any]:
    """Train one model and measure it on the fold it did not see."""
    tokenizer = load_tokenizer(options.model)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        tokenizer.pad_token = tokenizer.unk_token
    renderer = ChatRenderer(tokenizer)
    settings = RewardsConfig(
        margin="none",
        batch=options.batch,
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        max_length=options.max_length,
    )
    rows = read(options.data, domain)
    training = [row for row in rows if fold_of(row, options.folds) != fold]
    held = [row for row in rows if fold_of(row, options.folds) == fold]
    limits: dict[str, Any] = {"margins": MARGINS["none"], "max_length": options.max_length}
    elements = build(training, renderer, **limits).elements
    measured = build(held, renderer, **limits).elements
    torch.manual_seed(fold)
    model = load_scalar(options.model)
    model.config.pad_token_id = tokenizer.pad_token_id
    began = time.perf_counter()
    if side == "ours":
        train(model, elements, settings, pad=renderer.pad, seed=fold)
    else:
        train_trl(model, elements, settings, tokenizer)
    seconds = time.perf_counter() - began
    reward = RewardModel(model, tokenizer, RewardCard(domain))
    # One token counts as the answer: scores do not depend on where the prompt ends.
    items = [Tokens(list(s[:-1]), [s[-1]]) for e in measured for s in (e.sequences[:2])]
    scores = reward.score(items).reshape(-1, 2)
    right = (scores[:, 0] > scores[:, 1]) + 0.5 * (scores[:, 0] == scores[:, 1])
    longer = [len(e.sequences[0]) > len(e.sequences[1]) for e in measured]
    return {
        "trained": len(elements),
        "seconds": round(seconds, 1),
        "right": [float(value) for value in right],
        "longer": [float(value) for value in longer],
    }


def table(out: Path) -> dict[str, Any]:
    """Accuracies over all folds that are done, and ours minus TRL's on the same comparisons."""
    found: dict[str, Any] = {}
    for domain in DOMAINS:
        files = {
            side: {path.name.split("-")[0]: path for path in out.glob(f"*-{domain}-{side}.json")}
            for side in SIDES
        }
        both = sorted(files["ours"].keys() & files["trl"].keys())
        if not both:
            continue
        parts = {side: [read_json(files[side][fold]) for fold in both] for side in SIDES}
        right = {side: np.concatenate([part["right"] for part in parts[side]]) for side in SIDES}
        longer = np.concatenate([part["longer"] for part in parts["ours"]])
        values = {**right, "difference": right["ours"] - right["trl"], "longer_wins": longer}
        found[domain] = {
            "folds": len(both),
            "heldout": len(longer),
            **{name: list(bootstrap_mean(array, seed=1)) for name, array in values.items()},
            **{
                f"{side}_pairs_per_s": round(
                    sum(p["trained"] for p in parts[side]) / sum(p["seconds"] for p in parts[side]),
                    1,
                )
                for side in SIDES
            },
        }
    return found


def main() -> None:
    """Do what is not done yet, then print the table and one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--fold", type=int, action="append", help="only these; default: all")
    parser.add_argument("--domain", choices=DOMAINS, action="append")
    parser.add_argument("--side", choices=SIDES, action="append")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--max-length", type=int, default=512)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for fold in range(options.folds) if options.fold is None else options.fold:
        for domain in options.domain or DOMAINS:
            for side in options.side or SIDES:
                path = options.out / f"{fold}-{domain}-{side}.json"
                if not path.is_file():
                    atomic_write_json(path, unit(options, fold, domain, side))
    found = table(options.out)
    for domain, figures in found.items():
        for name in (*SIDES, "difference", "longer_wins"):
            mean, low, high = (100 * value for value in figures[name])
            print(f"{domain:12} {name:12} {mean:6.1f} % [{low:5.1f}, {high:5.1f}]")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
