"""Whether PPO in bfloat16 learns as it does in float32: steps, and a chain of versions.

    python tests/benchmarks/master_weights.py MODEL

For each number format, full fine-tuning at 1e-6: the share of parameters that 20 iterations moved
and their mean movement; then a chain of versions, each saved and loaded by the next, and the gain
in reward on prompts that training never sees, with the difference's 95 % interval over the seeds.
The reward is the share of an answer's tokens with an odd id.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from alignment.bench.sample import openings
from alignment.config.generation import GenerationConfig
from alignment.config.ppo import PPOConfig, StopConfig
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.load import Dtype, load_policy, load_tokenizer, save_model
from alignment.training.ppo.collect import Collector
from alignment.training.ppo.roles import full_copies
from alignment.training.ppo.scoring import Episode, PlainReward, PromptItem
from alignment.training.ppo.trainer import PPOTrainer

FORMATS: tuple[Dtype, Dtype] = ("float32", "bfloat16")
HELD_OUT = 512


def odd(episodes: Sequence[Episode]) -> np.ndarray:
    """Share of odd ids in each answer, (n,)."""
    return np.array([np.mean(np.array(e.tokens.response) % 2) for e in episodes])


def settings(iterations: int, rate: float) -> PPOConfig:
    """64 episodes of 32 tokens an iteration, four epochs of one mini-batch."""
    return PPOConfig(
        iterations=iterations,
        episodes=64,
        minibatch=64,
        learning_rate=rate,
        critic_learning_rate=rate,
        critic_init="policy",
        warmup_iterations=0,
        generation=GenerationConfig(max_new_tokens=32, generation_batch_size=64),
        stop=StopConfig(look_every=0, kl_limit=None),
    )


def train(start: Path, target: Path, dtype: Dtype, config: PPOConfig, seed: int) -> PPOTrainer:
    """One PPO from the checkpoint `start`; the policy is saved to `target` as a stage does."""
    tokenizer = load_tokenizer(start)
    policy, critic = load_policy(start), load_policy(start)
    roles = full_copies(policy, critic=critic, dtype=dtype)
    prompts = [PromptItem(tuple(ids)) for ids in openings(tokenizer, 4096)[HELD_OUT:]]
    renderer = ChatRenderer(tokenizer)
    trainer = PPOTrainer(roles, renderer, prompts, PlainReward(odd), config, seed=seed, ends=())
    trainer.train()
    roles.policy.settle(policy)
    save_model(policy, tokenizer, target)
    return trainer


def held_out(model: Path, config: PPOConfig) -> np.ndarray:
    """The mean reward of four answers to each held-out prompt, in float32, (n,)."""
    tokenizer = load_tokenizer(model)
    roles = full_copies(load_policy(model), critic=None)
    collector = Collector(roles, ChatRenderer(tokenizer), config, ())
    prompts = [PromptItem(tuple(ids)) for ids in openings(tokenizer, HELD_OUT)]
    draws = [odd(collector.answer(prompts, seed)[1]) for seed in range(4)]
    return np.stack(draws).mean(0)


def movement(start: Path, end: Path) -> tuple[float, float]:
    """Share of parameters that differ, and the mean |difference|, of those that a step may reach.

    Rows of the vocabulary that no prompt or answer uses get no gradient in either format.
    """
    before, after = load_policy(start).state_dict(), load_policy(end).state_dict()
    gaps = torch.cat([(after[name] - before[name]).abs().flatten() for name in before])
    return float((gaps > 0).float().mean()), float(gaps.mean())


def main() -> None:
    """Print one JSON line for the steps and one for the chain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--versions", type=int, default=5)
    parser.add_argument("--rate", type=float, default=1e-6)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=4)
    parsed = parser.parse_args()
    config = settings(parsed.iterations, parsed.rate)
    before = held_out(parsed.model, config)
    gains: dict[str, list[float]] = {dtype: [] for dtype in FORMATS}
    for seed in range(parsed.seeds):
        with tempfile.TemporaryDirectory() as directory:
            for dtype in FORMATS:
                current = parsed.model
                for number in range(1, parsed.versions + 1):
                    target = Path(directory) / f"{dtype}-{number}"
                    trainer = train(current, target, dtype, config, seed=100 * seed + number)
                    if number == 1:
                        share, mean = movement(current, target)
                        last = _shares(trainer._history[-1])
                        row = {"seed": seed, "format": dtype, "moved": share, "mean": mean, **last}
                        print(json.dumps(row), flush=True)
                    current = target
                gains[dtype].append(float((held_out(current, config) - before).mean()))
        print(json.dumps({"seed": seed, "gains": {d: gains[d][-1] for d in FORMATS}}), flush=True)
    gaps = np.subtract(gains["bfloat16"], gains["float32"])
    # Two runs draw other answers, so what counts is how runs scatter: Student's t over the seeds.
    error = stats.t.ppf(0.975, len(gaps) - 1) * gaps.std(ddof=1) / len(gaps) ** 0.5
    print(json.dumps({"gap": float(gaps.mean()), "interval": float(error)}))


def _shares(figures: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if name.endswith("updated_share")}


if __name__ == "__main__":
    main()
