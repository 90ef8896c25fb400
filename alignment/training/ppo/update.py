"""The gradient steps of one iteration: policy and critic on the same mini-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignment.config.ppo import PPOConfig
from alignment.models.chat_renderer import Tokens
from alignment.models.recompute import recomputing
from alignment.models.sharding import clip_gradients, rounds
from alignment.models.update_share import UpdateShare
from alignment.training.ppo.experience import Experience
from alignment.training.ppo.forward import (
    Pass,
    logprobs,
    pack,
    piece_of,
    pieces,
    values,
)
from alignment.training.ppo.losses import policy_loss, value_loss
from alignment.training.ppo.roles import LanguageRole, ValueRole
from alignment.utils import distributed
from alignment.utils.finite import stop_if_not_finite
from alignment.utils.threads import Together

_POLICY_SUMS = (
    "loss",
    "policy/clip_share",
    "policy/approximate_kl",
    "policy/ratio",
    "policy/exact_entropy",
)

Schedule = list[np.ndarray]
"""Episode numbers of each mini-batch, in order, all epochs."""

Part = tuple[Tensor, dict[str, float]]
"""The loss of a micro-batch, with its graph, and its figures."""


def schedule(episodes: int, minibatch: int, epochs: int, seed: int) -> Schedule:
    """Mini-batches of all epochs; each epoch visits every episode once, in a new order."""
    order = np.random.default_rng(seed)
    batches: Schedule = []
    for _ in range(epochs):
        permutation = order.permutation(episodes)
        batches += [permutation[i : i + minibatch] for i in range(0, episodes, minibatch)]
    return batches


def update_policy(
    role: LanguageRole,
    optimizer: torch.optim.Optimizer,
    experience: Experience,
    batches: Schedule,
    config: PPOConfig,
    together: Together,
    ptx: Callable[[int], Sequence[Tokens]] | None = None,
) -> dict[str, float]:
    """Take steps on the clipped surrogate (and the loss of PPO-ptx); returns figures.

    Args:
        together: runs micro-batches in parallel if possible.
        ptx: gives the texts of a step, by its number; None without PPO-ptx.

    Raises:
        StageError: loss or gradient is not finite; the weights are those of the last good step.
    """
    totals: dict[str, float] = {}
    first_error = 0.0
    with role.active(), recomputing(role.module):
        for number, batch in enumerate(batches):
            tokens = float(sum(len(experience.episodes[i].response) for i in batch))
            sums = dict.fromkeys(_POLICY_SUMS, 0.0)
            worst = 0.0
            part = partial(_policy_part, role, experience, tokens, config)
            work = _pieces("policy", experience, batch, piece_of(config, role))
            for figures in _add_gradients(part, work, role, together):
                worst = max(worst, figures.pop("error"))
                for name, value in figures.items():
                    sums[name] += value
            sums = distributed.totals(sums)
            means = {name: value / tokens for name, value in sums.items()}
            means["loss/policy"] = means.pop("loss") * tokens
            if config.entropy_coefficient == 0:
                del means["policy/exact_entropy"]
            if ptx is not None:
                means["loss/ptx"] = _ptx_step(role, ptx(number), config)
            norm, share = _step(role, optimizer, "policy", config)
            means |= {"grad_norm/policy": norm, "policy/updated_share": share}
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
    together: Together,
) -> dict[str, float]:
    """Take steps on the clipped value loss; returns figures. See `update_policy`."""
    totals: dict[str, float] = {}
    with role.active(), recomputing(role.module):
        for batch in batches:
            tokens = float(sum(len(experience.episodes[i].response) for i in batch))
            sums = {"loss": 0.0, "clipped": 0.0}
            part = partial(_critic_part, role, experience, tokens, config)
            work = _pieces("critic", experience, batch, piece_of(config, role))
            for part_figures in _add_gradients(part, work, role, together):
                for name, value in part_figures.items():
                    sums[name] += value
            sums = distributed.totals(sums)
            norm, share = _step(role, optimizer, "critic", config)
            figures = {
                "loss/value": sums["loss"],
                "critic/clip_share": sums["clipped"] / tokens,
                "grad_norm/critic": norm,
                "critic/updated_share": share,
            }
            for name, value in figures.items():
                totals[name] = totals.get(name, 0.0) + value / len(batches)
    return totals


def _share(batch: np.ndarray) -> list[int]:
    """This process's share of a mini-batch."""
    part = distributed.share(len(batch))
    return [int(i) for i in batch[part.start : part.stop]]


def _pieces(
    name: str, experience: Experience, batch: np.ndarray, limit: int
) -> Sequence[Pass | list[int]]:
    """The micro-batches of a mini-batch. Passes kept for the first step are used once."""
    passes = experience.kept.pop(name, None)
    return passes or pieces(experience.episodes, _share(batch), limit)


def _add_gradients(
    part: Callable[[Any], Part],
    pieces: Sequence[Pass | list[int]],
    role: LanguageRole | ValueRole,
    together: Together,
) -> Iterator[dict[str, float]]:
    """Add the gradients of all pieces' losses to the role's, in the order of the pieces.

    Yields:
        the figures of each piece.
    """
    if not together.apart:
        idle = rounds(role.module, len(pieces)) - len(pieces)
        for piece in pieces:
            loss, figures = part(piece)
            loss.backward()
            yield figures
        for _ in range(idle):
            (0.0 * part([0])[0]).backward()  # other processes have more
        return

    def work(piece: Pass | list[int]) -> tuple[tuple[Tensor | None, ...], dict[str, float]]:
        loss, figures = part(piece)
        return torch.autograd.grad(loss, role.parameters, allow_unused=True), figures

    for gradients, figures in together.each(work, pieces):
        for parameter, gradient in zip(role.parameters, gradients, strict=True):
            if gradient is not None:
                accumulated = parameter.grad
                parameter.grad = gradient if accumulated is None else accumulated.add_(gradient)
        yield figures


def _policy_part(
    role: LanguageRole,
    experience: Experience,
    tokens: float,
    config: PPOConfig,
    piece: Pass | list[int],
) -> Part:
    """Loss of one micro-batch of the policy; figures are sums, and the largest |ratio − 1|."""
    entropies = None
    if isinstance(piece, Pass):
        packed, log_probs = piece.packed, piece.result
    else:
        packed = pack(experience.episodes, piece, experience.logprobs.device)
        # Entropy needs a second pass over the logits, so compute it only for the loss.
        with_entropy = config.entropy_coefficient > 0
        log_probs, entropies = logprobs(
            role, packed, config.generation.temperature, with_entropy=with_entropy
        )
    place = (packed.episode, packed.place)
    surrogate = policy_loss(
        log_probs,
        experience.logprobs[place],
        experience.advantages[place],
        torch.ones_like(packed.targets, dtype=torch.bool),
        clip=config.clip_range,
        tokens=tokens,
    )
    loss = surrogate.loss
    figures = {
        "loss": float(loss.detach()),
        "policy/clip_share": float(surrogate.clipped),
        "policy/approximate_kl": float(surrogate.approximate_kl),
        "policy/ratio": float(surrogate.ratio),
        "error": float(surrogate.ratio_error),
    }
    if entropies is not None:
        loss = loss - config.entropy_coefficient * entropies.sum() / tokens
        figures["policy/exact_entropy"] = float(entropies.detach().sum())
    return loss, figures


def _critic_part(
    role: ValueRole,
    experience: Experience,
    tokens: float,
    config: PPOConfig,
    piece: Pass | list[int],
) -> Part:
    """Loss of one micro-batch of the critic."""
    if isinstance(piece, Pass):
        packed, estimates = piece.packed, piece.result
    else:
        packed = pack(experience.episodes, piece, experience.values.device)
        estimates = values(role, packed)
    place = (packed.episode, packed.place)
    loss, clipped = value_loss(
        estimates,
        experience.values[place],
        experience.returns[place],
        torch.ones_like(packed.targets, dtype=torch.bool),
        clip=config.value_clip_range,
        tokens=tokens,
    )
    return loss, {"loss": float(loss.detach()), "clipped": float(clipped)}


def _ptx_step(role: LanguageRole, texts: Sequence[Tokens], config: PPOConfig) -> float:
    """Add the gradient of γ · mean −log π over the texts' tokens; returns the plain loss."""
    tokens = float(sum(len(text.response) for text in texts))
    total = 0.0
    share = distributed.share(len(texts))
    own = pieces(texts, share, piece_of(config, role))
    for number in range(rounds(role.module, len(own))):
        counts = number < len(own)  # else other processes have more
        packed = pack(texts, own[number] if counts else [0], role.device)
        log_probs, _ = logprobs(role, packed, 1.0)
        loss = -log_probs.sum() / tokens * counts
        (config.ptx.coefficient * loss).backward()
        total += float(loss.detach())
    return distributed.total(total)


def _step(
    role: LanguageRole | ValueRole,
    optimizer: torch.optim.Optimizer,
    name: str,
    config: PPOConfig,
) -> tuple[float, float]:
    """Clip the gradient, take a step and clear the gradient.

    Returns:
        The gradient's norm before clipping, and the share of parameters that the step changed.
    """
    distributed.sum_gradients(role.parameters)
    norm = clip_gradients(role.parameters, config.optimizer.max_grad_norm)
    rate = "critic_learning_rate" if name == "critic" else "learning_rate"
    stop_if_not_finite(norm, f"the gradient of the {name}", remedy=f"lower ppo.{rate}")
    update = UpdateShare(role.parameters)
    update.before_step()
    optimizer.step()
    share = update.after_step()
    optimizer.zero_grad(set_to_none=True)
    role.publish()
    return norm, share
