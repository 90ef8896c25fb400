"""One of two processes that train a sharded policy on the answers of a real vLLM.

`python -m real_child START HOME PYTHON`; vLLM's log and the published weights go to HOME.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from alignment.config.compute import ComputeConfig
from alignment.config.inference import InferenceConfig, VLLMConfig
from alignment.config.ppo import PPOConfig
from alignment.inference.engine_factory import open_live
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.load import load_tokenizer
from alignment.models.sharded_load import load_sharded
from alignment.training.ppo.roles import full_copies
from alignment.training.ppo.scoring import PlainReward, PromptItem
from alignment.training.ppo.trainer import PPOTrainer
from alignment.utils import distributed
from alignment.utils.progress import SilentProgress

CONFIG = {
    "algorithm": "rloo",
    "samples_per_prompt": 4,
    "iterations": 3,
    "episodes": 32,
    "minibatch": 16,
    "generation": {"max_new_tokens": 24},
    "learning_rate": 3e-3,
    "warmup_iterations": 0,
    "stop": {"look_every": 0},
}


def main(start: Path, home: Path, python: str) -> None:
    torch.set_num_threads(1)
    distributed.join("cpu")
    renderer = ChatRenderer(load_tokenizer(start))
    policy = load_sharded(start, "policy")
    reference = load_sharded(start, "policy", learns=False)
    prompts = [
        PromptItem(tuple(renderer.prompt([{"role": "user", "content": f"the cat {word}"}])))
        for word in ("runs", "sits", "is red", "is big")
    ]
    with open_live(
        start,
        renderer,
        InferenceConfig(engine="vllm", vllm=VLLMConfig(python=python)),
        ComputeConfig(threads=1),
        context=128,
        home=home / "weights",
        log=home / "log",
        progress=SilentProgress(),
    ) as live:
        trainer = PPOTrainer(
            full_copies(policy, critic=None, reference=reference),
            renderer,
            prompts,
            PlainReward(lambda es: [sum(t % 2 for t in e.tokens.response) for e in es]),
            PPOConfig.model_validate(CONFIG),
            seed=1,
            live=live,
        )
        for iteration in range(3):
            figures = trainer.iterate(iteration)
            print({name: figures[name] for name in figures if name.startswith("engine/")})
            assert figures["engine/mismatch"] < 1e-5
            assert figures["engine/mismatch_largest"] < 1e-4
            assert figures["policy/approximate_kl"] > 1e-4, "the next policy is another"
    distributed.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
