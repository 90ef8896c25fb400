"""PPO's answers by a real vLLM, whose weights follow the policy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alignment.config.compute import ComputeConfig
from alignment.config.inference import InferenceConfig
from alignment.config.ppo import PPOConfig
from alignment.inference.engine_factory import open_live
from alignment.inference.vllm_environment import installed
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.load import load_policy
from alignment.training.ppo.adapters import SharedBackbone
from alignment.training.ppo.roles import full_copies
from alignment.training.ppo.scoring import PlainReward, PromptItem
from alignment.training.ppo.trainer import PPOTrainer
from alignment.training.ppo.weight_average import snapshot
from alignment.utils.progress import SilentProgress

pytestmark = pytest.mark.timeout(1800)

CONFIG: dict[str, Any] = {
    "iterations": 4,
    "episodes": 32,
    "minibatch": 16,
    "generation": {"max_new_tokens": 24},
    "learning_rate": 3e-3,
    "critic_learning_rate": 1e-3,
    "warmup_iterations": 0,
    "critic_warmup_iterations": 0,
    "stop": {"look_every": 0},
}


class Printed(SilentProgress):
    def say(self, message: str) -> None:
        print(message)


@pytest.mark.parametrize("adapter", [False, True])
def test_weights_reach_the_server_in_every_iteration(
    inference: InferenceConfig,
    make_policy: Callable[..., Path],
    renderer: ChatRenderer,
    tmp_path: Path,
    adapter: bool,
) -> None:
    # Tied: vLLM itself would go on answering with the old output embedding.
    start = make_policy(3, tie_word_embeddings=True)
    policy = load_policy(start)
    settings, rank = dict(CONFIG), None
    if adapter:
        settings |= {"lora": {"r": 4, "alpha": 8}, "critic_init": "policy"}
    config = PPOConfig.model_validate(settings)
    if config.lora is None:
        roles = full_copies(policy, critic=load_policy(make_policy(4)))
    else:
        shared = SharedBackbone(policy, config.lora, seed=1)
        roles, rank = shared.roles(critic=True), shared.rank
    before = snapshot(roles.modules["policy"])
    asked = [f"the {word} cat {'runs ' * number}" for number in range(4) for word in ("red", "big")]
    prompts = [
        PromptItem(tuple(renderer.prompt([{"role": "user", "content": text}]))) for text in asked
    ]
    with open_live(
        start,
        renderer,
        inference,
        ComputeConfig(threads=1),
        context=128,
        home=tmp_path / "weights",
        log=tmp_path / "log",
        progress=Printed(),
        adapter_rank=rank,
    ) as live:
        trainer = PPOTrainer(
            roles,
            renderer,
            prompts,
            PlainReward(lambda es: [sum(t % 2 for t in e.tokens.response) for e in es]),
            config,
            seed=1,
            live=live,
        )
        for iteration in range(4):
            figures = trainer.iterate(iteration)
            print({name: figures[name] for name in figures if name.startswith("engine/")})
            assert figures["engine/mismatch"] < 1e-5
            assert figures["engine/mismatch_largest"] < 1e-4
    after = snapshot(roles.modules["policy"])
    moved = [float((after[name] - value).abs().mean()) for name, value in before.items()]
    assert max(moved) > 1e-3, "the policy of the last iteration is another than the first's"
    assert torch.isfinite(torch.tensor(moved)).all()


def test_two_processes_feed_a_server_from_their_shards(
    inference: InferenceConfig, make_policy: Callable[..., Path], tmp_path: Path
) -> None:
    start = make_policy(3, tie_word_embeddings=True)
    python = str(installed(inference.vllm).python)
    launcher = [sys.executable, "-m", "alignment.execution.launcher", "2"]
    subprocess.run(
        [*launcher, "real_child", str(start), str(tmp_path), python],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
        check=True,
        timeout=900,
    )
