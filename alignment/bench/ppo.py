"""Speed and memory of PPO: what `align bench ppo` prints.

Policy, critic, reference and one reward model as full copies in float32; prompts are story
openings of 8 to 12 words; every episode has exactly `new_tokens` tokens; one mini-batch of `batch`
episodes is one optimiser step, `epochs` times over. Loading is not counted, everything else is.
"""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from alignment.config.ppo import PPOConfig, StopConfig
from alignment.models.chat import ChatRenderer
from alignment.models.load import load_policy, load_scalar, load_tokenizer, resolve_device
from alignment.rewards.model import RewardCard, RewardModel
from alignment.training.ppo.heap import keep_freed_memory
from alignment.training.ppo.models import ModelScorer
from alignment.training.ppo.roles import full_copies
from alignment.training.ppo.scoring import PlainReward, PromptItem
from alignment.training.ppo.trainer import PPOTrainer

_TEXT = """once upon a time there was little girl boy named lily tom who liked to play with
his her mom dad in the park big red ball dog cat one day they went and saw happy"""
_WORDS = _TEXT.split()


def openings(tokenizer: object, count: int, seed: int = 0) -> list[list[int]]:
    """Token ids of `count` story openings of 8 to 12 words."""
    draw = random.Random(seed)
    renderer = ChatRenderer(tokenizer)  # type: ignore[arg-type]
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]  # type: ignore[attr-defined]
    found = []
    for _ in range(count):
        words = [draw.choice(_WORDS) for _ in range(draw.randint(8, 12))]
        found.append([*start, *renderer.response(" ".join(words).capitalize(), finished=False)])
    return found


def run(
    *,
    model: Path,
    episodes: int = 256,
    batch: int = 64,
    new_tokens: int = 48,
    epochs: int = 4,
    prompts: Sequence[Sequence[int]] | None = None,
    device: str = "auto",
    dtype: str = "float32",
) -> dict[str, object]:
    """Train on `episodes` episodes and measure.

    Args:
        prompts: token ids, one list an episode; drawn story openings without.
    """
    keep_freed_memory()
    place = resolve_device(device)
    policy = load_policy(model, dtype=dtype, device=place)  # type: ignore[arg-type]
    torch.manual_seed(0)
    critic = load_scalar(model, dtype=dtype, device=place)  # type: ignore[arg-type]
    scalar = load_scalar(model, dtype=dtype, device=place)  # type: ignore[arg-type]
    tokenizer = load_tokenizer(model)
    renderer = ChatRenderer(tokenizer)
    reward = RewardModel(scalar, tokenizer, RewardCard("helpfulness"))
    config = PPOConfig(
        iterations=max(1, episodes // batch),
        episodes=batch,
        minibatch=batch,
        epochs=epochs,
        max_new_tokens=new_tokens,
        rollout_batch=batch,
        stop=StopConfig(guard_every=0),
    )
    rows = openings(tokenizer, episodes) if prompts is None else prompts
    trainer = PPOTrainer(
        full_copies(policy, critic=critic),
        renderer,
        [PromptItem(tuple(ids)) for ids in rows],
        PlainReward(ModelScorer(reward, renderer)),
        config,
        seed=0,
        ends=(),
    )
    began, cpu = time.perf_counter(), time.process_time()
    outcome = trainer.train()
    if place.type == "cuda":
        torch.cuda.synchronize()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    done = outcome.iterations * batch
    figures: dict[str, object] = {
        "bench": "ppo",
        "implementation": "align",
        "episodes": done,
        "episodes_per_s": round(done / seconds, 3),
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu, 3),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "threads": torch.get_num_threads(),
        "device": str(place),
    }
    if place.type == "cuda":
        figures["peak_device_mb"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    return figures
