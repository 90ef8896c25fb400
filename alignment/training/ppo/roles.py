"""The models of PPO in their roles: policy, reference and critic.

A role is a model with one set of weights. With full fine-tuning every role has its own copy. With a
shared backbone (`adapters.py`) the roles are adapters, which `active()` switches on.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel

from alignment.errors import ConfigError
from alignment.fastpath import use_for_training
from alignment.models.load import Dtype, backbone, scalar_head
from alignment.models.master_weights import MasterWeights
from alignment.models.sharding import gather, inside, is_sharded
from alignment.models.streaming import write_untied
from alignment.training.ppo.losses import token_logprobs
from alignment.utils import distributed

Switch = Callable[[], AbstractContextManager[None]]
"""Selects the weights that a shared backbone uses."""


class _Role:
    """What learns in a role, and how its weights come into use."""

    def __init__(
        self, trained: list[nn.Parameter], switch: Switch, masters: MasterWeights | None
    ) -> None:
        self.parameters = trained
        self.masters = masters
        self._switch = switch

    def active(self) -> AbstractContextManager[None]:
        """A context that computes with this role's weights, as they are now."""
        self.publish()
        return self._switch()

    def publish(self) -> None:
        """Compute with the weights that were learned last."""
        if self.masters is not None:
            self.masters.publish()

    def settle(self, module: nn.Module) -> None:
        """End the training: `module` has its float32 weights again."""
        if self.masters is not None:
            self.masters.return_to(module)
            self.masters = None


class LanguageRole(_Role):
    """A causal language model in one role.

    Args:
        model: gives logits; called without attention mask (right padding, causal).
        trained: parameters that learn in this role; empty for a reference.
        switch: activates the role's weights.
        masters: float32 weights of a model that computes in bfloat16; they are what learns then.
        write: writes what a server needs to answer in this role; None: the whole model.

    Attributes:
        size: parameters of the model.
        fast: whether a hand-written pass computes it, see `alignment.fastpath`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        trained: list[nn.Parameter],
        switch: Switch = nullcontext,
        masters: MasterWeights | None = None,
        write: Callable[[Path], None] | None = None,
    ):
        super().__init__(trained, switch, masters)
        self.model = model
        self.write = partial(write_untied, model) if write is None else write
        self.size = _size(model)
        with self.active():
            direct = _head_is_linear(model)
            self._body = _Body(backbone(model), alone=not is_sharded(model)) if direct else None
        self.fast = self._body is not None and self._body.lean is not None

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def module(self) -> nn.Module:
        """What computes this role."""
        return self.model

    def logits(self, ids: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Logits (n, v) at n positions of ids (b, s); only these if the head is a linear layer."""
        if self._body is not None:
            return inside(self.model, self._chosen_logits, ids, row, column)
        logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits[row, column]

    def _chosen_logits(self, ids: Tensor, row: Tensor, column: Tensor) -> Tensor:
        assert self._body is not None
        logits: Tensor = self.model.get_output_embeddings()(self._body(ids, row, column))
        return logits

    def logprobs(
        self, ids: Tensor, row: Tensor, column: Tensor, targets: Tensor, temperature: float
    ) -> Tensor:
        """log π (n,) float32 of targets (n,) at n positions of ids (b, s)."""
        head: Any = self.model.get_output_embeddings()
        if self._body is not None and self._body.lean is not None and head.bias is None:
            hidden = self._body(ids, row, column)
            return self._body.lean.token_logprobs(hidden, head.weight, targets, temperature)
        logits = self.logits(ids, row, column).float()
        return token_logprobs(logits / temperature if temperature != 1.0 else logits, targets)


class _Body:
    """Hidden states at chosen positions, from the hand-written pass `lean` if there is one and it
    covers the input, else from transformers; `alone` allows such a pass."""

    def __init__(self, body: nn.Module, *, alone: bool):
        self._body = body
        self.lean = use_for_training(body) if alone else None

    def __call__(self, ids: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """(n, width)."""
        if self.lean is not None:
            hidden = self.lean.hidden(ids, row * ids.shape[1] + column)
            if hidden is not None:
                return hidden
        states: Tensor = self._body(input_ids=ids, use_cache=False).last_hidden_state[row, column]
        return states


class ValueHead(nn.Module):
    """A value for each hidden state: a linear layer with bias, in float32."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden.float() @ self.weight + self.bias


class ValueRole(_Role):
    """A critic: a backbone of `size` parameters, and a head that gives each position a value.

    `root` is the module that the backbone is a part of, if that is what may be sharded.
    """

    def __init__(
        self,
        body: nn.Module,
        head: ValueHead,
        trained: list[nn.Parameter],
        switch: Switch = nullcontext,
        masters: MasterWeights | None = None,
        root: nn.Module | None = None,
    ):
        super().__init__(trained, switch, masters)
        self.body = body
        self.head = head
        self.size = _size(body)
        self.module = body if root is None else root
        self._places = _Body(body, alone=not is_sharded(self.module))

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def values(self, ids: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Values (n,) float32 at n positions of ids (b, s)."""
        value: Tensor = self.head(inside(self.module, self._places, ids, row, column))
        return value


def _size(model: nn.Module) -> int:
    """Number of parameters, trained or not."""
    return sum(parameter.numel() for parameter in model.parameters())


@dataclass(frozen=True)
class Roles:
    """The roles of a training, and the modules that a checkpoint must hold.

    All are in eval mode: with dropout, ratios and KL would compare other networks.

    Attributes:
        policy: trained; its `model` also draws the answers.
        reference: frozen.
        critic: trained; None for RLOO.
        modules: the modules that training changes, by name.
    """

    policy: LanguageRole
    reference: LanguageRole
    critic: ValueRole | None
    modules: dict[str, nn.Module]


def full_copies(
    policy: PreTrainedModel,
    *,
    critic: PreTrainedModel | ValueRole | None,
    scale: tuple[float, float] = (0.0, 1.0),
    dtype: Dtype = "float32",
    reference: PreTrainedModel | None = None,
) -> Roles:
    """Roles that are full copies and share no weights; the reference is the policy as it is now.

    Args:
        policy: in float32, or sharded; trained in place.
        critic: a reward model (scalar head kept, standardised), a causal model (new head of
            zeros), a critic, or None for RLOO; in float32, trained in place.
        dtype: what the models compute in. What learns is float32 either way.
        reference: a frozen model of its own, which sharded roles need; None copies the policy.
        scale: mean and deviation of the reward model's raw scores; the critic starts with the value
            (score − mean) / deviation.
    """
    masters = _masters(policy.eval().requires_grad_(True), dtype)
    learning = policy if masters is None else masters
    modules: dict[str, nn.Module] = {"policy": learning}
    frozen = copy.deepcopy(policy) if reference is None else reference.eval()
    frozen.requires_grad_(False)
    value: ValueRole | None = None
    if critic is not None:
        if isinstance(critic, PreTrainedModel):
            critic = critic_from(critic, scale, dtype)
        value = critic
        body = value.body if value.masters is None else value.masters
        modules["critic"] = nn.ModuleDict({"body": body, "head": value.head})
    speaker = LanguageRole(policy, list(learning.parameters()), masters=masters)
    return Roles(speaker, LanguageRole(frozen, []), value, modules)


def _masters(module: nn.Module, dtype: Dtype) -> MasterWeights | None:
    """Master weights, where the module is to compute in another format than float32.

    A sharded module has its own: it rounds what it gathers.
    """
    if dtype == "float32" or is_sharded(module):
        return None
    return MasterWeights(module, getattr(torch, dtype))


def critic_from(
    model: PreTrainedModel, scale: tuple[float, float] = (0.0, 1.0), dtype: Dtype = "float32"
) -> ValueRole:
    """A critic made from a reward model, or from a language model with a head of zeros.

    See `full_copies`; the value head is float32 whatever `dtype` is.
    """
    linear = scalar_head(model) if model.get_output_embeddings() is None else None
    weights = () if linear is None else (linear.weight, linear.bias)
    return critic_over(backbone(model.eval()), *weights, scale=scale, dtype=dtype)


def critic_over(
    body: nn.Module,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    scale: tuple[float, float] = (0.0, 1.0),
    dtype: Dtype = "float32",
) -> ValueRole:
    """A critic over a backbone, which may be sharded.

    Args:
        weight, bias: (1, width) and (1,) of a reward model's head; without them the value head is
            zero.
        scale: see `full_copies`.
    """
    described: Any = body.requires_grad_(True)
    head = ValueHead(int(described.config.get_text_config().hidden_size))
    if weight is not None:
        mean, deviation = scale
        with torch.no_grad():
            head.weight.copy_(weight[0].float() / deviation)
            head.bias.fill_(((0.0 if bias is None else float(bias[0])) - mean) / deviation)
    head = head.to(next(body.parameters()).device)
    masters = _masters(body, dtype)
    learning = body if masters is None else masters
    return ValueRole(body, head, [*learning.parameters(), *head.parameters()], masters=masters)


@torch.no_grad()
def _head_is_linear(model: PreTrainedModel) -> bool:
    """Whether logits are the output embedding of hidden states, without soft cap or scale."""
    head = model.get_output_embeddings()
    if head is None:
        raise ConfigError(f"{type(model).__name__} has no output embedding to speak with")
    ids = torch.arange(1, 5, device=next(model.parameters()).device)[None]
    ids = ids % int(model.config.get_text_config().vocab_size)
    whole = model(input_ids=ids, use_cache=False).logits

    def parts() -> Tensor:
        body = backbone(model)(input_ids=ids, use_cache=False)
        logits: Tensor = head(body.last_hidden_state)
        return logits

    return bool(torch.allclose(inside(model, parts), whole, rtol=1e-3, atol=1e-4))


def save_critic(role: ValueRole, directory: Path) -> None:
    """Save a critic: the backbone in transformers' format, and its head beside it, in float32.

    All processes call it; the first one writes.
    """
    role.settle(role.body)
    body: Any = role.body
    weights = gather(body) if is_sharded(body) else None
    if not distributed.is_first():
        return
    directory.mkdir(parents=True, exist_ok=True)
    body.save_pretrained(directory, state_dict=weights)
    head = {name: tensor.detach().cpu() for name, tensor in role.head.state_dict().items()}
    save_file(head, directory / "value_head.safetensors")


def load_critic(directory: Path) -> ValueRole:
    """Load a critic that `save_critic` wrote."""
    body = AutoModel.from_pretrained(directory, trust_remote_code=False, use_safetensors=True)
    head = ValueHead(int(body.config.get_text_config().hidden_size))
    head.load_state_dict(load_file(directory / "value_head.safetensors"))
    return ValueRole(body, head, [*body.parameters(), *head.parameters()])
