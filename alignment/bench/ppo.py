"""`align bench ppo`: speed and memory of PPO.

Prompts are story openings of 8 to 12 words, and every episode has exactly `new_tokens` tokens. One
mini-batch of `batch` episodes is one optimiser step, repeated for `epochs`. The time includes
everything except loading and the reward model's trial of its layout. Roles:

* `four`: policy, critic, reference and one reward model as full copies;
* `five`: a second reward model beside them;
* `shared`: the same five as LoRA adapters over one backbone.
"""

from __future__ import annotations

import multiprocessing
import random
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from alignment.bench import limit
from alignment.bench.clock import measured
from alignment.bench.conditions import peak_rss_mb
from alignment.config.generation import GenerationConfig
from alignment.config.lora import LoraConfig
from alignment.config.ppo import PPOConfig, StopConfig
from alignment.config.rewards import CombineConfig
from alignment.config.vocabulary import DOMAINS
from alignment.models.chat_renderer import ChatRenderer, Tokens
from alignment.models.load import Dtype, load_policy, load_scalar, load_tokenizer, resolve_device
from alignment.rewards.adapter import inject
from alignment.rewards.card import RewardCard
from alignment.rewards.model import RewardModel
from alignment.training.ppo.roles import Roles, full_copies
from alignment.training.ppo.scoring import (
    Episode,
    ModelScorer,
    PlainReward,
    PromptItem,
    Reward,
    Scores,
)
from alignment.training.ppo.setup import Builder
from alignment.training.ppo.trainer import PPOTrainer

_TEXT = """once upon a time there was little girl boy named lily tom who liked to play with
his her mom dad in the park big red ball dog cat one day they went and saw happy"""
_WORDS = _TEXT.split()
_MB = 2**20
Sharing = Literal["four", "five", "shared"]


def openings(tokenizer: Any, count: int, seed: int = 0) -> list[list[int]]:
    """Token ids of `count` story openings of 8 to 12 words."""
    draw = random.Random(seed)
    renderer = ChatRenderer(tokenizer)
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    rows = []
    for _ in range(count):
        words = [draw.choice(_WORDS) for _ in range(draw.randint(8, 12))]
        rows.append([*start, *renderer.response(" ".join(words).capitalize(), finished=False)])
    return rows


def run(
    *,
    model: Path,
    episodes: int = 256,
    batch: int = 64,
    new_tokens: int = 48,
    epochs: int = 4,
    roles: Sharing = "four",
    prompts: Sequence[Sequence[int]] | None = None,
    device: str = "auto",
    dtype: Dtype = "float32",
) -> dict[str, Any]:
    """Train on `episodes` episodes and measure.

    Args:
        batch: episodes per iteration and per optimiser step.
        new_tokens: tokens of every episode.
        prompts: token ids, one list per episode; None draws story openings.

    Returns:
        Figures. In MB: `weights_mb` of one copy of the model, `held_mb` by which loading all roles
        raised the resident set (or the GPU's memory), `peak_rss_mb` of the process.
    """
    place = resolve_device(device)
    config = PPOConfig(
        iterations=max(1, episodes // batch),
        episodes=batch,
        minibatch=batch,
        epochs=epochs,
        generation=GenerationConfig(max_new_tokens=new_tokens, generation_batch_size=batch),
        lora=LoraConfig(r=8) if roles == "shared" else None,
        critic_init="policy" if roles == "shared" else "helpfulness",
        stop=StopConfig(look_every=0, kl_limit=None),
    )
    tokenizer = load_tokenizer(model)
    renderer = ChatRenderer(tokenizer)
    with tempfile.TemporaryDirectory() as directory:
        if roles != "four":
            _in_another_process(model, Path(directory))
        before = _memory(place)
        if roles == "four":
            taking_part, reward = _four(model, renderer, place, dtype)
        else:
            stages: dict[str, Path] = {domain: Path(directory) / domain for domain in DOMAINS}
            build = Builder(model, stages, config, dtype, place, 0, print)
            taking_part, reward = build.roles(), build.reward(CombineConfig(), renderer)
    loaded = _memory(place) - before
    rows = openings(tokenizer, episodes) if prompts is None else prompts
    counted = _Counted(reward)
    trainer = PPOTrainer(
        taking_part,
        renderer,
        [PromptItem(tuple(ids)) for ids in rows],
        counted,
        config,
        seed=0,
        ends=(),
    )
    with measured(place) as clock:
        outcome = trainer.train()
    peak = peak_memory = peak_rss_mb()
    seconds = clock.seconds
    done = outcome.iterations * batch
    weights = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    figures: dict[str, Any] = {
        "bench": "ppo",
        "implementation": "align",
        "roles": roles,
        "episodes": done,
        "episodes_per_s": round(done / seconds, 3),
        "seconds": round(seconds, 3),
        "cpu_seconds": round(clock.cpu_seconds, 3),
        "peak_rss_mb": round(peak_memory, 1),
        "weights_mb": round(weights / _MB, 1),
        "held_mb": round(loaded, 1),
        "device": str(place),
    }
    if place.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / _MB
        figures["peak_device_mb"] = round(peak, 1)
    figures["peak_over_start_mb"] = round(peak - before, 1)
    policy = taking_part.policy.model
    operations = sum(
        _operations(limit.dimensions(policy), tokens, epochs, roles)
        for tokens in counted.iterations
    )
    return figures | limit.beside(policy, operations, seconds)


class _Counted(Reward):
    """A reward that keeps the episodes of each iteration."""

    def __init__(self, reward: Reward):
        self._reward = reward
        self.iterations: list[list[Tokens]] = []

    def score(self, episodes: Sequence[Episode], *, learn: bool) -> Scores:
        self.iterations.append([episode.tokens for episode in episodes])
        return self._reward.score(episodes, learn=learn)


def _operations(
    sizes: limit.Dimensions, episodes: list[Tokens], epochs: int, roles: Sharing
) -> float:
    """Of an iteration: drawing the answers, the reference's and the reward models' reading, and the
    steps of policy and critic. The critic's values are those of its first step."""
    work = limit.answered([e.prompt for e in episodes], [e.response for e in episodes])
    read = limit.forward(sizes, work.fed, work.draws)
    scored = (1 if roles == "four" else 2) * limit.forward(sizes, work.whole)
    frozen = roles == "shared"
    step = limit.training(sizes, work.fed, work.draws, frozen=frozen)
    step += limit.training(sizes, work.fed, frozen=frozen)
    return 2 * read + scored + epochs * step


def _four(
    model: Path, renderer: ChatRenderer, device: torch.device, dtype: Dtype
) -> tuple[Roles, Reward]:
    policy = load_policy(model, device=device)
    torch.manual_seed(0)
    critic = load_scalar(model, device=device)
    scalar = load_scalar(model, dtype=dtype, device=device)
    reward = RewardModel(scalar, load_tokenizer(model), RewardCard("helpfulness"))
    reward.score([Tokens([renderer.eos], [renderer.eos])])
    roles = full_copies(policy, critic=critic, dtype=dtype)
    return roles, PlainReward(ModelScorer(reward, renderer))


def _in_another_process(model: Path, directory: Path) -> None:
    """Write reward adapters without leaving traces in this process's memory."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        pool.submit(_write_adapters, model, directory).result()


def _write_adapters(model: Path, directory: Path) -> None:
    for number, domain in enumerate(DOMAINS):
        torch.manual_seed(number)
        scalar = load_scalar(model)
        inject(scalar, LoraConfig(r=8), seed=number)
        reward = RewardModel(scalar, load_tokenizer(model), RewardCard(domain))
        reward.save_adapter(model, directory / domain / "model")


def _memory(device: torch.device) -> float:
    """MB that this process uses now, resident or on the GPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated() / _MB
    return float(psutil.Process().memory_info().rss) / _MB
