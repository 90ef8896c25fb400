"""`align bench sample`: speed of best-of-K.

The policy draws K answers to story openings of 8 to 12 words at temperature 1, without top-k, and
two reward models of the policy's size score all of them. The time includes everything except
loading.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from alignment.bench import limit
from alignment.bench.clock import measured, wait_for
from alignment.bench.conditions import peak_rss_mb
from alignment.bench.ppo import openings
from alignment.config.vocabulary import DOMAINS
from alignment.inference.engine import TransformersEngine, sample_seeds
from alignment.inference.types import SamplingSettings
from alignment.models.chat_renderer import ChatRenderer, Tokens
from alignment.models.load import Dtype, load_policy, load_scalar, load_tokenizer, resolve_device
from alignment.rewards.card import RewardCard
from alignment.rewards.model import RewardModel
from alignment.utils.threads import side_by_side


def run(
    *,
    model: Path,
    prompts: int = 64,
    k: int = 16,
    max_new_tokens: int = 96,
    batch_size: int = 512,
    ends: Sequence[int] = (),
    device: str = "auto",
    dtype: Dtype = "float32",
) -> dict[str, Any]:
    """Sample and score once, and measure; what is tried once for a model (passes, layouts) is timed
    apart, as `trial_seconds`.

    Args:
        ends: further token ids that end an answer; a frequent one gives answers of all lengths.
    """
    place = resolve_device(device)
    policy = load_policy(model, dtype=dtype, device=place)
    tokenizer = load_tokenizer(model)
    renderer = ChatRenderer(tokenizer)
    policy.generation_config.eos_token_id = [renderer.eos, *ends]
    rewards = []
    for domain in DOMAINS:
        torch.manual_seed(len(domain))
        scalar = load_scalar(model, dtype=dtype, device=place)
        rewards.append(RewardModel(scalar, tokenizer, RewardCard(domain)))
    rows = openings(tokenizer, prompts)
    engine = TransformersEngine(policy, renderer)
    settings = SamplingSettings(max_new_tokens=max_new_tokens, batch_size=batch_size)
    seeds = sample_seeds(0, [str(number) for number in range(prompts)], k)
    trial = time.perf_counter()
    engine.sample(rows[:1], [seeds[0][:1]], SamplingSettings(max_new_tokens=1))
    for reward in rewards:
        reward.score([Tokens(rows[0], [renderer.eos])])
    wait_for(place)
    trial = time.perf_counter() - trial
    with measured(place) as clock:
        samples = engine.sample(rows, seeds, settings)
        wait_for(place)
        generating = time.perf_counter() - clock.began
        items = [
            Tokens(row, sample.token_ids)
            for row, group in zip(rows, samples, strict=True)
            for sample in group
        ]
        calls = [lambda: rewards[0].score(items), lambda: rewards[1].score(items)]
        side_by_side(calls, rewards[0].workers)
    peak_memory, seconds = peak_rss_mb(), clock.seconds
    tokens = sum(len(item.response) for item in items)
    work = limit.answered([item.prompt for item in items], [item.response for item in items])
    sizes = limit.dimensions(policy)
    operations = limit.forward(sizes, work.fed, work.draws)
    operations += len(rewards) * limit.forward(sizes, work.whole)
    return {
        "bench": "sample",
        "implementation": "align",
        "samples_per_s": round(len(items) / seconds, 2),
        "tokens_per_s": round(tokens / seconds, 1),
        "samples": len(items),
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "trial_seconds": round(trial, 3),
        "generate_seconds": round(generating, 3),
        "score_seconds": round(seconds - generating, 3),
        "cpu_seconds": round(clock.cpu_seconds, 3),
        "refereed": engine.refereed,
        "peak_rss_mb": round(peak_memory, 1),
        "device": str(place),
        **limit.beside(policy, operations, seconds),
    }
