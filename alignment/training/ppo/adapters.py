"""One backbone in memory for all roles of PPO.

Policy, critic and reward models are LoRA adapters (with a scalar head if they need one) over the
same frozen base. If PPO starts from a full checkpoint, that is the base: the policy's fresh adapter
changes nothing at first, and the reference is the base with all adapters off. If PPO starts from an
adapter, the policy continues it and the reference is a frozen second copy of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import (
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignment.config.lora import LoraConfig as LoraSettings
from alignment.errors import DataError
from alignment.models.adapters import drawing, lora_config
from alignment.models.chat_renderer import Tokens
from alignment.models.load import backbone, load_tokenizer
from alignment.models.master_weights import ParameterView
from alignment.models.padding import pad
from alignment.models.sharding import inside, rounds, shard
from alignment.rewards.cache import Answer
from alignment.rewards.card import RewardCard
from alignment.rewards.model import RewardModel
from alignment.training.ppo.forward import pieces
from alignment.training.ppo.roles import LanguageRole, Roles, ValueHead, ValueRole
from alignment.utils import distributed

POLICY, CRITIC, REFERENCE = "policy", "critic", "reference"


class SharedBackbone:
    """A causal language model with an adapter for each role.

    Args:
        model: the full checkpoint below all adapters; its own weights are frozen.
        seed: of the adapters' random start, N(0, 1/r); the other factor starts at zero.
        start: adapter directory that PPO starts from; None starts from the model itself.
        sharded: split backbone and adapters over all processes.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        config: LoraSettings,
        *,
        seed: int = 0,
        start: Path | None = None,
        sharded: bool = False,
    ):
        model.eval()
        model.requires_grad_(False)
        lora = lora_config(config, task_type="CAUSAL_LM")
        with drawing(seed, where="ppo.lora"):
            if start is None:
                self.peft: Any = get_peft_model(model, lora, adapter_name=POLICY)
            else:
                self.peft = PeftModel.from_pretrained(
                    model, str(start), adapter_name=POLICY, is_trainable=True
                )
                self.peft.load_adapter(str(start), adapter_name=REFERENCE, is_trainable=False)
            self.peft.add_adapter(CRITIC, lora)
        self._reference = None if start is None else REFERENCE
        self.peft.eval()
        base: Any = self.peft.get_base_model()
        self.model: PreTrainedModel = base
        if sharded:
            shard(base)
        self._learning = {**self.adapter(POLICY), **self.adapter(CRITIC)}
        self._active: str | None = None
        self._switch(POLICY)

    def adapter(self, name: str) -> dict[str, nn.Parameter]:
        """The parameters of one adapter, by name."""
        middle = f".{name}."
        return {
            key: parameter
            for key, parameter in self.model.named_parameters()
            if "lora_" in key and middle in key
        }

    @contextmanager
    def active(self, name: str | None) -> Iterator[None]:
        """Compute with adapter `name` (None: the bare base) inside the block."""
        before = self._active
        self._switch(name)
        try:
            yield
        finally:
            self._switch(before)

    def _switch(self, name: str | None) -> None:
        if name == self._active and name is not None:
            return
        if name is None:
            self.peft.base_model.disable_adapter_layers()
        else:
            self.peft.base_model.enable_adapter_layers()
            self.peft.set_adapter(name)
        # PEFT lets only the active adapter learn. Here each has its own optimiser, and an inactive
        # adapter gets no gradient anyway.
        for parameter in self._learning.values():
            parameter.requires_grad_(True)
        self._active = name

    def refer_to(self, adapter: Path | None) -> None:
        """Make an adapter of this base the reference, or the bare base (None)."""
        if self._reference is not None:
            self.peft.delete_adapter(REFERENCE)
        self._reference = None if adapter is None else REFERENCE
        if adapter is not None:
            self.peft.load_adapter(str(adapter), adapter_name=REFERENCE, is_trainable=False)
            self.peft.eval()
        self._switch(self._active)

    def roles(self, *, critic: bool, reference: PreTrainedModel | None = None) -> Roles:
        """Policy, reference and (with `critic`) a critic whose head starts at zero.

        Args:
            reference: a model of its own to be the reference.
        """
        policy = self.adapter(POLICY)
        modules: dict[str, nn.Module] = {"policy": ParameterView(policy)}
        value = None
        if critic:
            own = self.adapter(CRITIC)
            head = ValueHead(int(self.model.config.get_text_config().hidden_size))
            head = head.to(self.model.device)
            trained = [*own.values(), *head.parameters()]
            body = backbone(self.model)
            critic_of = partial(self.active, CRITIC)
            value = ValueRole(body, head, trained, critic_of, root=self.model)
            modules["critic"] = nn.ModuleDict({"adapter": ParameterView(own), "head": head})
        if reference is None:
            frozen = LanguageRole(self.model, [], partial(self.active, self._reference))
        else:
            frozen = LanguageRole(reference.eval().requires_grad_(False), [])
        return Roles(
            LanguageRole(
                self.model,
                list(policy.values()),
                partial(self.active, POLICY),
                write=self.write_policy,
            ),
            frozen,
            value,
            modules,
        )

    def reward(self, name: str, directory: Path, card: RewardCard) -> AdapterReward:
        """Load a reward model that was trained as an adapter of this base.

        Raises:
            DataError: the directory has no adapter with a scalar head.
        """
        weights = directory / "adapter_model.safetensors"
        if not weights.is_file():
            raise DataError(
                f"{directory} is not a reward adapter: it has no {weights.name}",
                remedy="train the reward model with LoRA, or set ppo.lora: null",
            )
        heads = [v for k, v in load_file(weights).items() if k.endswith("score.weight")]
        if len(heads) != 1 or heads[0].shape[0] != 1:
            raise DataError(f"{directory} has no scalar head beside its adapter")
        self.peft.load_adapter(str(directory), adapter_name=name, is_trainable=False)
        self.peft.eval()
        self._switch(self._active)
        head = heads[0][0].to(self.model.device)
        return AdapterReward(self, name, head, load_tokenizer(directory), card)

    def learned(self) -> dict[str, Tensor]:
        """The policy's adapter, whole; all processes call it."""
        state = get_peft_model_state_dict(self.peft, adapter_name=POLICY)
        return {name: distributed.whole(tensor) for name, tensor in state.items()}

    @property
    def rank(self) -> int:
        """Of the policy's adapter."""
        return int(self.peft.peft_config[POLICY].r)

    def write_policy(self, directory: Path) -> None:
        """Write the policy's adapter for a server; all processes call it, the first writes."""
        weights = self.learned()
        if not distributed.is_first():
            return
        directory.mkdir(parents=True)
        whole = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
        save_file(whole, directory / "adapter_model.safetensors")
        self.peft.peft_config[POLICY].save_pretrained(directory)

    def merged(
        self, base: PreTrainedModel | None = None, learned: dict[str, Tensor] | None = None
    ) -> PreTrainedModel:
        """The policy as a plain model with its adapter merged; the other roles become unusable.

        Args:
            base: the checkpoint below all adapters in float32, where the backbone is sharded, or
                holds it in bfloat16: a merge there would round a good part of the update away.
            learned: what `learned` gave before, if it was asked.
        """
        self._switch(POLICY)
        whole = self.peft
        if base is not None:
            described = self.peft.peft_config[POLICY]
            learned = self.learned() if learned is None else learned
            whole = get_peft_model(base, described, adapter_name=POLICY)
            set_peft_model_state_dict(whole, learned, adapter_name=POLICY)
        merged: PreTrainedModel = whole.merge_and_unload(adapter_names=[POLICY])
        return merged


class AdapterReward(RewardModel):
    """A reward model with its own adapter and head on the shared backbone."""

    def __init__(
        self,
        shared: SharedBackbone,
        name: str,
        head: Tensor,
        tokenizer: PreTrainedTokenizerBase,
        card: RewardCard,
    ):
        super().__init__(shared.model, tokenizer, card)
        self._shared = shared
        self._name = name
        self._head = head

    @torch.no_grad()
    def _compute(self, keys: list[Answer], tokens_per_batch: int) -> np.ndarray:
        """The head's output (n,) on the hidden state of each answer's last token."""
        scores = np.empty(len(keys), dtype=np.float64)
        items = [Tokens(list(prompt), list(answer)) for prompt, answer in keys]
        body = backbone(self._shared.model)
        device = self._head.device
        with self._shared.active(self._name):
            batches = pieces(items, range(len(items)), tokens_per_batch)
            for number in range(rounds(self._shared.model, len(batches))):
                if number >= len(batches):  # other processes have more
                    nothing = torch.zeros((1, 1), dtype=torch.long, device=device)
                    inside(self._shared.model, _hidden, body, nothing)
                    continue
                where = batches[number]
                ids = pad([items[i].ids for i in where], 0).to(device)
                hidden = inside(self._shared.model, _hidden, body, ids)
                ends = torch.tensor([len(items[i]) - 1 for i in where], device=device)
                last = hidden[torch.arange(len(where), device=device), ends]
                scores[where] = (last.float() @ self._head.float()).double().cpu().numpy()
        return scores


def _hidden(body: Any, ids: Tensor) -> Tensor:
    states: Tensor = body(input_ids=ids, use_cache=False).last_hidden_state
    return states
