"""Small worlds in which the best policy is known exactly."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from alignment.config.ppo import PPOConfig
from alignment.models.chat_renderer import ChatRenderer
from alignment.training.ppo.roles import full_copies
from alignment.training.ppo.scoring import Episode, PlainReward, PromptItem, Reward
from alignment.training.ppo.trainer import PPOTrainer


class Letters:
    """A tokenizer of whole numbers; id 0 ends an answer."""

    eos_token_id = 0
    bos_token_id = None
    pad_token_id = 0
    chat_template = None

    def encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        return [int(word) for word in text.split() if word.isdigit()]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return " ".join(str(i) for i in ids)


def tiny_llama(
    vocabulary: int = 8, seed: int = 0, width: int = 32, layers: int = 1
) -> PreTrainedModel:
    """A random Llama whose distributions are not flat."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        initializer_range=0.15,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def renderer() -> ChatRenderer:
    return ChatRenderer(Letters())


def sequences(vocabulary: int, length: int) -> list[tuple[int, ...]]:
    return list(itertools.product(range(vocabulary), repeat=length))


@torch.no_grad()
def sequence_logprobs(
    model: PreTrainedModel, prompt: Sequence[int], answers: Sequence[Sequence[int]]
) -> torch.Tensor:
    """log π(answer | prompt) of each answer, (n,) float64."""
    ids = torch.tensor([[*prompt, *answer] for answer in answers])
    logs = torch.log_softmax(model(input_ids=ids).logits.double(), -1)[:, len(prompt) - 1 : -1]
    return logs.gather(-1, ids[:, len(prompt) :, None]).squeeze(-1).sum(1)


class Problem:
    """Fixed-length answers to one prompt with a reward for each; exact objective and optimum."""

    def __init__(self, vocabulary: int, length: int, rewards: np.ndarray, seed: int = 0):
        self.prompt = (1, 2)
        self.length = length
        self.answers = sequences(vocabulary, length)
        self.rewards = torch.from_numpy(rewards)
        self.table = {a: float(r) for a, r in zip(self.answers, rewards, strict=True)}
        self.model = tiny_llama(vocabulary, seed)
        self.reference = sequence_logprobs(self.model, self.prompt, self.answers)

    def scores(self, episodes: Sequence[Episode]) -> np.ndarray:
        return np.array([self.table[tuple(e.tokens.response)] for e in episodes])

    def objective(self, logs: torch.Tensor, beta: float) -> float:
        """E[r] − β KL(π ‖ π_ref), exactly."""
        return float((logs.exp() * (self.rewards - beta * (logs - self.reference))).sum())

    def optimum(self, beta: float) -> float:
        """β log Σ π_ref exp(r/β): the objective of π* ∝ π_ref exp(r/β)."""
        return beta * float(torch.logsumexp(self.reference + self.rewards / beta, 0))

    def share_of_the_way(self, beta: float) -> float:
        """How far the model has come from the reference's objective to the optimum's."""
        start = self.objective(self.reference, beta)
        now = self.objective(sequence_logprobs(self.model, self.prompt, self.answers), beta)
        return (now - start) / (self.optimum(beta) - start)

    def trainer(
        self,
        config: PPOConfig,
        reward: Reward | None = None,
        prompts: Sequence[PromptItem] | None = None,
        **more: object,
    ) -> PPOTrainer:
        critic = None
        if config.algorithm != "rloo":
            critic = tiny_llama(int(self.model.config.vocab_size), 5)
        return PPOTrainer(
            full_copies(self.model, critic=critic),
            renderer(),
            prompts or [PromptItem(self.prompt)],
            reward or PlainReward(self.scores),
            config,
            seed=int(more.pop("seed", 3)),  # type: ignore[call-overload]
            ends=(),
            **more,  # type: ignore[arg-type]
        )


def toy_config(beta: float, length: int, **more: object) -> PPOConfig:
    settings: dict[str, object] = {
        "iterations": 60,
        "episodes": 256,
        "minibatch": 128,
        "epochs": 2,
        "generation": {"max_new_tokens": length},
        "learning_rate": 5e-3,
        "critic_learning_rate": 1e-2,
        "warmup_iterations": 0,
        "optimizer": {"weight_decay": 0.0},
        "value_clip_range": None,
        "kl": {"coefficient": beta},
        "reward": {"missing_eos_penalty": 0.0},
        "stop": {"look_every": 0},
    }
    return PPOConfig.model_validate({**settings, **more})


def log(value: float) -> float:
    return math.log(value)
