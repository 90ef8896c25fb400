"""Builds roles and rewards from model directories: full copies, or adapters over one backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from alignment.config.ppo import PPOConfig
from alignment.config.rewards import CombineConfig
from alignment.config.vocabulary import DOMAINS
from alignment.models.adapters import adapter_base, is_adapter
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.checkpoint_files import stored_tensor
from alignment.models.digest import weights_digest
from alignment.models.load import Dtype, load_policy, load_scalar
from alignment.models.recompute import can_recompute
from alignment.models.sharded_load import load_sharded
from alignment.models.sharding import gather
from alignment.rewards.card import read_card
from alignment.rewards.identified import unidentified
from alignment.rewards.model import RewardModel
from alignment.rewards.threshold import fitted
from alignment.training.ppo.roles import (
    Roles,
    ValueRole,
    critic_from,
    critic_over,
    full_copies,
)
from alignment.training.ppo.scoring import CombinedReward, ModelScorer
from alignment.utils import distributed
from alignment.utils.import_string import load_callable

if TYPE_CHECKING:
    from alignment.training.ppo.adapters import SharedBackbone


@dataclass
class Builder:
    """Loads the models of PPO, each weight once.

    Args:
        start: model directory that PPO starts from, full or adapter.
        rewards: domain → directory of its reward stage.
        seed: of fresh adapters.
        say: called with a line if a reward model cannot share the backbone.
        sharded: split every model over all processes.
        reference: model directory of the reference, full or adapter; None: as PPO starts.
    """

    start: Path
    rewards: dict[str, Path]
    config: PPOConfig
    dtype: Dtype
    device: torch.device
    seed: int
    say: Callable[[str], None]
    sharded: bool = False
    reference: Path | None = None

    def __post_init__(self) -> None:
        self._shared: SharedBackbone | None = None
        self._copies: Roles | None = None
        self._base = self.start
        if self.config.lora is None:
            self._policy = self._load(self.start)
            self._recompute(self._policy)
            return
        from alignment.training.ppo.adapters import SharedBackbone  # peft takes seconds

        over = is_adapter(self.start)
        self._base = Path(adapter_base(self.start)) if over else self.start
        self._policy = load_policy(self._base, dtype=self.dtype, device=self.device)
        self._shared = SharedBackbone(
            self._policy,
            self.config.lora,
            seed=self.seed,
            start=self.start if over else None,
            sharded=self.sharded,
        )
        self._recompute(self._policy)

    def _recompute(self, model: PreTrainedModel) -> None:
        """Spare the activations of a sharded model that learns: it is one of those that hardly
        fit."""
        if self.sharded and not can_recompute(model):
            self.say(f"{type(model).__name__} keeps all its activations: it cannot recompute them")

    def roles(self) -> Roles:
        """Policy, reference and critic."""
        with_critic = self.config.algorithm == "ppo"
        if self._shared is not None:
            frozen = self._apart() if self.reference is not None else None
            return self._shared.roles(critic=with_critic, reference=frozen)
        frozen = None
        if self.sharded or self.reference is not None:
            frozen = self._load(self.reference or self.start, learns=False)
        self._copies = full_copies(
            self._policy,
            critic=self._critic() if with_critic else None,
            dtype=self.dtype,
            reference=frozen,
        )
        return self._copies

    def _apart(self) -> PreTrainedModel | None:
        """The reference where the shared backbone cannot be it: neither the bare base, nor an
        adapter over it."""
        assert self.reference is not None
        assert self._shared is not None
        over = is_adapter(self.reference)
        base = Path(adapter_base(self.reference)) if over else self.reference
        if weights_digest(base) == weights_digest(self._base):
            self._shared.refer_to(self.reference if over else None)
            return None
        self.say(
            "ppo.reference: sft is no adapter over the policy's backbone, so it is loaded "
            "separately (adapters in finetune.sft.lora and finetune.rejection.lora would share it)"
        )
        return self._load(self.reference, learns=False)

    def _load(self, path: Path, *, learns: bool = True) -> PreTrainedModel:
        """A policy with its own weights."""
        if self.sharded:
            return load_sharded(path, "policy", dtype=self.dtype, learns=learns, device=self.device)
        dtype: Dtype = "float32" if learns else self.dtype
        return load_policy(path, dtype=dtype, device=self.device)

    def _critic(self) -> ValueRole:
        """The critic as it starts."""
        by_policy = self.config.critic_init == "policy"
        path = self.start if by_policy else self.rewards[self.config.critic_init] / "model"
        card = None if by_policy else read_card(path)
        scale = (0.0, 1.0) if card is None else (card.mean - card.bias, card.std)
        if not self.sharded:
            load = load_policy if by_policy else load_scalar
            return critic_from(load(path, device=self.device), scale, self.dtype)
        body = load_sharded(path, "body", dtype=self.dtype, device=self.device)
        self._recompute(body)
        head = None if by_policy else stored_tensor(Path(path), "score.weight", "classifier.weight")
        return critic_over(body, head, scale=scale, dtype=self.dtype)

    def reward(
        self, combine: CombineConfig, renderer: ChatRenderer, guards: dict[str, Path] | None = None
    ) -> CombinedReward:
        """The combined reward with the config's extra parts or, given `guards`, that of the guards.

        Args:
            guards: domain → directory of its guard's stage.
        """
        stages, kind = (self.rewards, "reward") if guards is None else (guards, "guard")
        models = {
            domain: self._model(stages[domain] / "model", f"{kind}_{domain}") for domain in DOMAINS
        }
        parts = self.config.parts if guards is None else ()
        safety = models["safety"]
        reason = unidentified(safety.card)
        if reason is not None and combine.method == "piecewise":
            self.say(f"the piecewise reward routes by tags alone: {reason}")
        if reason is None:  # else no threshold applies, nor need it be found
            combine = fitted(combine, stages["safety"])
        return CombinedReward(
            ModelScorer(models["helpfulness"], renderer),
            ModelScorer(safety, renderer),
            combine,
            probability=(
                (lambda z: np.full_like(z, np.nan))
                if reason is not None
                else lambda z: safety.probability(z * safety.card.std + safety.card.mean)
            ),
            extra={p.name: (load_callable(p.function, "ppo.parts"), p.weight) for p in parts},
        )

    def _model(self, directory: Path, name: str) -> RewardModel:
        if self._shared is not None:
            card = read_card(directory)
            if card.backbone is not None and card.backbone == weights_digest(self._base):
                return self._shared.reward(name, directory, card)
            self.say(
                f"{name} is not an adapter over the policy's backbone, so it is loaded separately "
                "(rewards.lora: {} with rewards.init: base or sft would share it)"
            )
        return RewardModel.load(directory, self.dtype, self.device, sharded=self.sharded)

    def final(self) -> tuple[PreTrainedModel | None, dict[str, Tensor] | None]:
        """The policy as a plain float32 model, and its weights where it is sharded.

        All processes call it; only the first one's is used. With a shared backbone the other roles
        are unusable afterwards.
        """
        if self._shared is None:
            if self._copies is not None:
                self._copies.policy.settle(self._policy)
            return self._policy, gather(self._policy) if self.sharded else None
        if not self.sharded and self.dtype == "float32":
            return self._shared.merged(), None
        learned = self._shared.learned()
        if not distributed.is_first():
            return None, None
        return self._shared.merged(load_policy(self._base), learned), None

    @property
    def served(self) -> Path:
        """The full checkpoint that a server of the policy starts from, or has the shape of."""
        return Path(adapter_base(self.start)) if is_adapter(self.start) else self.start

    @property
    def adapter_rank(self) -> int | None:
        """Rank of the policy's adapter; None: the policy is a full checkpoint."""
        return None if self._shared is None else self._shared.rank

    @property
    def shares(self) -> bool:
        """Whether all roles share one backbone."""
        return self._shared is not None
