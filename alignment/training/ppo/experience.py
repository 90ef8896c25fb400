"""Computes rewards, advantages and returns from a collected batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from alignment.config.ppo import PPOConfig
from alignment.models.chat_renderer import Tokens
from alignment.training.ppo.advantages import (
    discounted_returns,
    explained_variance,
    generalised_advantages,
    leave_one_out,
)
from alignment.training.ppo.collect import Collected
from alignment.training.ppo.forward import Pass
from alignment.training.ppo.kl import kl_per_token
from alignment.training.ppo.masked_ops import masked_mean, masked_variance, whiten
from alignment.training.ppo.rewards import RunningMoments, place, shape_scores


@dataclass(frozen=True)
class Experience:
    """The training data of an iteration; all tensors are (b, t). `kept` is that of `Collected`."""

    episodes: list[Tokens]
    logprobs: Tensor
    advantages: Tensor
    values: Tensor
    returns: Tensor
    kept: dict[str, list[Pass]]


def compute_advantages(
    batch: Collected, config: PPOConfig, *, coefficient: float, moments: RunningMoments
) -> tuple[Experience, dict[str, float]]:
    """The experience of a batch, and its figures.

    Args:
        coefficient: β, the present price of a nat of KL.
        moments: of all scores so far; updated if the config normalises by them.
    """
    mask, old = batch.answers.mask, batch.old
    kl = kl_per_token(old, batch.reference, config.kl.estimator) * mask
    scores = torch.from_numpy(batch.scores.total).to(old.device, torch.float32)
    shaped = shape_scores(
        _normalised(scores, config, moments),
        mask.sum(1),
        batch.answers.finished,
        missing_eos_penalty=config.reward.missing_eos_penalty,
        length_penalty=config.reward.length_penalty,
    )
    rewards = place(shaped, kl, mask, coefficient=coefficient)
    figures = _describe(batch, rewards.sum(1))
    figures["kl/coefficient"] = coefficient
    if config.reward.whiten:
        rewards = whiten(rewards, mask, shift_mean=False)
    if config.algorithm == "ppo":
        values = batch.values
        advantages, returns = generalised_advantages(
            rewards, values, mask, gamma=config.gamma, lam=config.gae_lambda
        )
        came = discounted_returns(rewards, mask, gamma=config.gamma)
        figures["critic/explained_variance"] = float(explained_variance(values, came, mask))
        first = slice(0, 1)  # the state after the prompt, once an answer
        figures["critic/explained_variance_start"] = float(
            explained_variance(values[:, first], came[:, first], mask[:, first])
        )
        figures["critic/value"] = float(masked_mean(values, mask))
        figures["critic/return"] = float(masked_mean(returns, mask))
    else:
        each = leave_one_out(rewards.sum(1), config.samples_per_prompt)
        advantages, returns = each[:, None] * mask, torch.zeros_like(rewards)
    figures["advantage/mean"] = float(masked_mean(advantages, mask))
    figures["advantage/deviation"] = float(masked_variance(advantages, mask).sqrt())
    if config.whiten_advantages:
        advantages = whiten(advantages, mask, shift_mean=True)
    if batch.gap is not None and config.rollout_weight_cap is not None:
        advantages = advantages * importance(batch.gap, config.rollout_weight_cap)
        cut = (batch.gap > math.log(config.rollout_weight_cap)).float()
        figures["engine/truncated_share"] = float(masked_mean(cut, mask))
    experience = Experience(batch.tokens, old, advantages, batch.values, returns, batch.kept)
    return experience, figures


def importance(gap: Tensor, cap: float) -> Tensor:
    """Truncated importance weights min(π/μ, C) of tokens that another engine μ drew, which computes
    the same policy π with other rounding (Ionides 2008; Yao et al. 2025, "Your efficient RL
    framework secretly brings you off-policy RL training").

    Times the advantages they weight the clipped surrogate, for min(ρA, clip(ρ)A) w is
    min(ρAw, clip(ρ)Aw) where w > 0. Below the cap the gradient is that of π, in expectation.

    Args:
        gap: (b, t) log π − log μ.
        cap: C; it bounds the variance, and lets the gradient fall short where π is above C μ.
    """
    return gap.exp().clamp(max=cap)


def _normalised(scores: Tensor, config: PPOConfig, moments: RunningMoments) -> Tensor:
    shaping = config.reward
    if shaping.normalise == "batch":
        scores = (scores - scores.mean()) / scores.std(unbiased=False).clamp(min=1e-8)
    elif shaping.normalise == "running":
        moments.update(scores)
        scores = moments.normalise(scores)
    clip = shaping.score_clip
    return scores if clip is None else scores.clamp(-clip, clip)


def _describe(batch: Collected, totals: Tensor) -> dict[str, float]:
    """Figures of a batch before training on it."""
    mask, old, reference, scores = batch.answers.mask, batch.old, batch.reference, batch.scores
    lengths = mask.sum(1).float()
    combined = scores.parts["combined"]
    figures = {
        "score/mean": float(combined.mean()),
        "score/deviation": float(combined.std()),
        "reward/total": float(totals.mean()),
        "kl/reference": float(((old - reference) * mask).sum(1).mean()),
        "kl/token": float(masked_mean(old - reference, mask)),
        "kl/k3": float((kl_per_token(old, reference, "k3") * mask).sum(1).mean()),
        "policy/entropy": float(-masked_mean(old, mask)),
        "reference/perplexity": math.exp(min(float(-masked_mean(reference, mask)), 50.0)),
        "answer/tokens": float(lengths.mean()),
        "answer/tokens_p95": float(torch.quantile(lengths, 0.95)),
        "answer/cut_share": float((~batch.answers.finished).float().mean()),
        **scores.figures,
    }
    if batch.gap is not None:
        figures["engine/mismatch"] = float(masked_mean(batch.gap.abs(), mask))
        figures["engine/mismatch_largest"] = float(batch.gap.abs().max())
    for name, values in scores.parts.items():
        if name != "combined":
            figures[f"score/{name}"] = float(values.mean())
    return figures
