"""A trainer with all settings in use, and what tests do with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from toys import renderer, tiny_llama

from alignment.config.ppo import PPOConfig
from alignment.config.rewards import CombineConfig
from alignment.models.chat_renderer import Tokens
from alignment.models.load import Dtype
from alignment.training.ppo.early_stopping import StopSet
from alignment.training.ppo.roles import full_copies
from alignment.training.ppo.scoring import CombinedReward, PromptItem
from alignment.training.ppo.trainer import PPOTrainer
from alignment.utils.metrics_log import Series

PROMPTS = [PromptItem((1, *range(2, 2 + i)), is_safety=i % 3 == 0) for i in range(7)]


EVERYTHING: dict[str, Any] = {
    "iterations": 6,
    "episodes": 16,
    "minibatch": 8,
    "epochs": 2,
    "generation": {"max_new_tokens": 6},
    "learning_rate": 1e-2,
    "critic_learning_rate": 1e-2,
    "warmup_iterations": 2,
    "critic_warmup_iterations": 1,
    "checkpoint_every": 1,
    "ema": 0.9,
    "safety_share": 0.5,
    "entropy_coefficient": 0.01,
    "kl": {"coefficient": 0.05, "target": 0.01, "horizon": 20},
    "reward": {"normalise": "running", "score_clip": 3.0, "whiten": True, "length_penalty": 0.01},
    "ptx": {"coefficient": 0.1},
    "stop": {"look_every": 2, "heldout_prompts": 4, "patience": None},
}


def evens(episodes: Any) -> np.ndarray:
    return np.array([np.mean([t % 2 == 0 for t in e.tokens.response]) for e in episodes])


def small(episodes: Any) -> np.ndarray:
    return np.array([-np.mean(e.tokens.response) / 4 for e in episodes])


def build(directory: Path | None, dtype: Dtype = "float32", **changes: Any) -> PPOTrainer:
    config = PPOConfig.model_validate({**EVERYTHING, **changes})
    policy = tiny_llama(10)
    critic = tiny_llama(10, 4) if config.algorithm == "ppo" else None
    stop_set = StopSet(PROMPTS[:3], small) if config.stop.look_every else None
    return PPOTrainer(
        full_copies(policy, critic=critic, dtype=dtype),
        renderer(),
        PROMPTS,
        CombinedReward(evens, small, CombineConfig(method="constrained")),
        config,
        seed=11,
        stop_set=stop_set,
        ptx=[Tokens([1], [2, 3, 0]), Tokens([4, 5], [6, 0]), Tokens([7], [1, 0])],
        ends=(0,),
        checkpoints=None if directory is None else directory / "checkpoints",
        series=None if directory is None else Series(directory / "series.jsonl"),
    )


def weights(trainer: PPOTrainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.roles.policy.model.named_parameters()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, right[name]) for name, value in left.items())
