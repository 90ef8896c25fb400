"""The gradient steps of one iteration: policy and critic on the same mini-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from alignment import distributed
from alignment.config.ppo import PPOConfig
from alignment.models.chat import Tokens
from alignment.training.divergence import stop_if_not_finite
from alignment.training.ppo.experience import Experience
from alignment.training.ppo.forward import logprobs, micro_batches, pack, piece_of, values
from alignment.training.ppo.losses import policy_loss, value_loss
from alignment.training.ppo.roles import LanguageRole, ValueRole

_POLICY_SUMS = (
    "loss",
    "policy/clip_share",
    "policy/approximate_kl",
    "policy/ratio",
    "policy/exact_entropy",
)

Schedule = list[np.ndarray]
"""Episode numbers of each mini-batch, in order, all epochs."""


def schedule(episodes: int, minibatch: int, epochs: int, seed: int) -> Schedule:
    """Each epoch visits every episode once, in a new order."""
    order = np.random.default_rng(seed)
    batches: Schedule = []
    for _ in range(epochs):
        permutation = order.permutation(episodes)
        batches += [permutation[i : i + minibatch] for i in range(0, episodes, minibatch)]
    return batches


def make_optimizer(
    parameters: Iterable[nn.Parameter], rate: float, config: PPOConfig
) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
        fused=True,
    )


def update_policy(
    role: LanguageRole,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    batches: Schedule,
    config: PPOConfig,
    ptx: Callable[[int], Sequence[Tokens]] | None = None,
) -> dict[str, float]:
    """Steps on the clipped surrogate (and the side loss of PPO-ptx); figures of the iteration.

    Args:
        ptx: texts for the step of this number.

    Raises:
        StageError: loss or gradient is not finite; the weights are those of the last good step.
    """
    totals: dict[str, float] = {}
    first_error = 0.0
    with role.active():
        for number, batch in enumerate(batches):
            tokens = float(sum(len(experience.episodes[i].response) for i in batch))
            sums = dict.fromkeys(_POLICY_SUMS, 0.0)
            worst = 0.0
            for where in micro_batches(
                experience.episodes, _mine(batch), piece_of(config, role.device)
            ):
                loss, figures, error = _policy_part(role, experience, where, tokens, config)
                loss.backward()
                worst = max(worst, error)
                for name, value in figures.items():
                    sums[name] += float(value)
            sums = distributed.totals(sums)
            means = {name: value / tokens for name, value in sums.items()}
            means["loss/policy"] = means.pop("loss") * tokens
            if config.entropy_coefficient == 0:
                del means["policy/exact_entropy"]
            if ptx is not None:
                means["loss/ptx"] = _ptx_step(role, ptx(number), config)
            means["grad_norm/policy"] = _step(role.parameters, optimizer, "policy", config)
            if number == 0:
                first_error = distributed.largest(worst)
            for name, mean in means.items():
                totals[name] = totals.get(name, 0.0) + mean / len(batches)
    return {**totals, "policy/first_ratio_error": first_error}


def update_critic(
    role: ValueRole,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    batches: Schedule,
    config: PPOConfig,
) -> dict[str, float]:
    """Steps on the clipped value loss; figures of the iteration. Raises as `update_policy`."""
    totals: dict[str, float] = {}
    with role.active():
        for batch in batches:
            tokens = float(sum(len(experience.episodes[i].response) for i in batch))
            sums = {"loss": 0.0, "clipped": 0.0}
            for where in micro_batches(
                experience.episodes, _mine(batch), piece_of(config, role.device)
            ):
                packed = pack(experience.episodes, where, experience.values.device)
                place = (packed.episode, packed.place)
                loss, clipped = value_loss(
                    values(role, packed),
                    experience.values[place],
                    experience.returns[place],
                    torch.ones_like(packed.targets, dtype=torch.bool),
                    clip=config.value_clip,
                    tokens=tokens,
                )
                loss.backward()
                sums["loss"] += float(loss.detach())
                sums["clipped"] += float(clipped)
            sums = distributed.totals(sums)
            figures = {
                "loss/value": sums["loss"],
                "critic/clip_share": sums["clipped"] / tokens,
                "grad_norm/critic": _step(role.parameters, optimizer, "critic", config),
            }
            for name, value in figures.items():
                totals[name] = totals.get(name, 0.0) + value / len(batches)
    return totals


def _mine(batch: np.ndarray) -> list[int]:
    """This process's share of a mini-batch."""
    part = distributed.share(len(batch))
    return [int(i) for i in batch[part.start : part.stop]]


def _policy_part(
    role: LanguageRole,
    experience: Experience,
    where: list[int],
    tokens: float,
    config: PPOConfig,
) -> tuple[Tensor, dict[str, Tensor], float]:
    """Loss of one micro-batch with its gradient graph, sums to look at, largest |ratio − 1|."""
    packed = pack(experience.episodes, where, experience.logprobs.device)
    place = (packed.episode, packed.place)
    # Entropy costs a second pass over the logits: only where the loss needs its gradient.
    wanted = config.entropy_coefficient > 0
    taken, entropies = logprobs(role, packed, config.temperature, with_entropy=wanted)
    surrogate = policy_loss(
        taken,
        experience.logprobs[place],
        experience.advantages[place],
        torch.ones_like(packed.targets, dtype=torch.bool),
        clip=config.clip,
        tokens=tokens,
    )
    loss = surrogate.loss
    figures = {
        "loss": loss.detach(),
        "policy/clip_share": surrogate.clipped.float(),
        "policy/approximate_kl": surrogate.approximate_kl,
        "policy/ratio": surrogate.ratio,
    }
    if entropies is not None:
        loss = loss - config.entropy_coefficient * entropies.sum() / tokens
        figures["policy/exact_entropy"] = entropies.detach().sum()
    return loss, figures, float(surrogate.ratio_error)


def _ptx_step(role: LanguageRole, texts: Sequence[Tokens], config: PPOConfig) -> float:
    """Add the gradient of γ · mean −log π over the texts' tokens; returns the plain loss."""
    tokens = float(sum(len(text.response) for text in texts))
    total = 0.0
    mine = distributed.share(len(texts))
    for where in micro_batches(texts, mine, piece_of(config, role.device)):
        packed = pack(texts, where, role.device)
        taken, _ = logprobs(role, packed, 1.0)
        loss = -taken.sum() / tokens
        (config.ptx.coefficient * loss).backward()
        total += float(loss.detach())
    return distributed.total(total)


def _step(
    parameters: list[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    name: str,
    config: PPOConfig,
) -> float:
    """Clip, step and forget the gradient; returns its norm before clipping."""
    distributed.sum_gradients(parameters)
    norm = float(nn.utils.clip_grad_norm_(parameters, config.max_grad_norm))
    rate = "critic_learning_rate" if name == "critic" else "learning_rate"
    stop_if_not_finite(norm, f"the gradient of the {name}", remedy=f"lower ppo.{rate}")
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm
