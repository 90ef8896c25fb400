"""`align bench reward`: speed and memory of full fine-tuning of a reward model on real pairs.

Pairs are tokenised as TRL does (the whole transcript as text, then EOS), and those over
`max_length` are left out. The time does not include tokenising, which `tokenising_seconds` has. So
the figures can be compared with TRL's RewardTrainer, as `tests/benchmarks/reward_vs_trl.py` does.
"""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import torch

from alignment.bench import limit
from alignment.bench.clock import measured
from alignment.bench.conditions import peak_rss_mb
from alignment.bench.phases import phase
from alignment.config.rewards import RewardsConfig
from alignment.errors import DataError
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.load import load_scalar, load_tokenizer, resolve_device
from alignment.models.optimizer import make_optimizer, make_schedule, warmup_steps
from alignment.rewards.batches import Batcher
from alignment.rewards.examples import Element, Pair
from alignment.rewards.train import backward

MARGIN = 1.0


def read_pairs(data: Path, tokenizer: Any, pairs: int, max_length: int) -> list[Element]:
    """The first `pairs` comparisons of an HH file with at most `max_length` tokens, in order.

    Raises:
        DataError: the file has fewer.
    """
    elements: list[Element] = []
    with gzip.open(data, "rt") if data.suffix == ".gz" else data.open() as file:
        for line in file:
            row = json.loads(line)
            sides = []
            for name in ("chosen", "rejected"):
                text = row[name]
                if not text.endswith(tokenizer.eos_token):
                    text += tokenizer.eos_token
                sides.append(tuple(tokenizer(text, verbose=False)["input_ids"]))
            if max(map(len, sides)) <= max_length:
                elements.append(Element((sides[0], sides[1]), (Pair(0, 1, MARGIN),)))
            if len(elements) == pairs:
                return elements
    raise DataError(
        f"only {len(elements)} pairs of at most {max_length} tokens; {pairs} were requested",
        where=str(data),
        remedy="lower --pairs or raise --max-length",
    )


def run(
    model: Path,
    data: Path,
    pairs: int = 512,
    batch: int = 32,
    max_length: int = 512,
    tokens_per_batch: int = 4096,
    device: str = "auto",
    seed: int = 0,
) -> dict[str, Any]:
    """Train one epoch in file order and measure.

    Args:
        data: file in HH-RLHF's format.

    Returns:
        `pairs_per_s`, `first_loss`, `peak_rss_mb`, … and the conditions of the measurement.
    """
    settings = RewardsConfig(
        batch=batch,
        learning_rate=1e-3,
        max_length=max_length,
        max_tokens_per_micro_batch=tokens_per_batch,
    )
    tokenizer = load_tokenizer(model)
    began = time.perf_counter()
    elements = read_pairs(data, tokenizer, pairs, max_length)
    tokenising = time.perf_counter() - began
    torch.manual_seed(seed)
    reward = load_scalar(model, device=resolve_device(device))
    batcher = Batcher(
        reward,
        pad=ChatRenderer(tokenizer).pad,
        tokens_per_batch=tokens_per_batch,
        max_length=max_length,
    )
    optimizer = make_optimizer(reward.parameters(), settings.learning_rate, settings.optimizer)
    steps = -(-pairs // batch)
    schedule = make_schedule(
        optimizer,
        steps=steps,
        warmup=warmup_steps(steps, settings.warmup_ratio, settings.warmup_steps),
        min_lr_ratio=settings.min_lr_ratio,
    )
    losses = []
    batches = [elements[start : start + batch] for start in range(0, pairs, batch)]
    with measured(reward.device) as clock:
        for elements in batches:
            figures = backward(reward, elements, batcher)
            with phase("optimiser"):
                torch.nn.utils.clip_grad_norm_(
                    reward.parameters(), settings.optimizer.max_grad_norm
                )
                optimizer.step()
                schedule.step()
                optimizer.zero_grad(set_to_none=True)
            losses.append(figures.loss)
    peak_memory = peak_rss_mb()
    sizes = limit.dimensions(reward)
    operations = sum(
        limit.training(sizes, limit.distinct(ids for e in elements for ids in e.sequences))
        for elements in batches
    )
    return {
        "bench": "reward",
        "implementation": "align",
        "pairs_per_s": round(pairs / clock.seconds, 3),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "peak_rss_mb": round(peak_memory, 1),
        "pairs": pairs,
        "batch": batch,
        "max_length": max_length,
        "seconds": round(clock.seconds, 3),
        "cpu_seconds": round(clock.cpu_seconds, 3),
        "tokenising_seconds": round(tokenising, 3),
        "device": str(reward.device),
        **limit.beside(reward, operations, clock.seconds),
        "layout": batcher.style.name,
    }
