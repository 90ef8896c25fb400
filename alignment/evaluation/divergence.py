"""KL divergence of a policy from its references, measured on the policy's own answers.

For an answer y ~ π, the log-ratio log π(y|x) − log ρ(y|x) is an unbiased estimate of KL(π‖ρ) in
nats per answer (k1). Schulman's k3 has the same mean and less variance if π and ρ are close
(http://joschu.net/blog/kl-approx.html). The sum of the exact KL of the next-token distributions
along y (Rao-Blackwell, Amini et al. 2025, arXiv 2504.10637) is also unbiased and never noisier than
k1. We report the last one; the others are a check on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alignment.models import padding
from alignment.models.chat_renderer import Tokens
from alignment.models.sharding import rounds
from alignment.utils import distributed
from alignment.utils.progress import Progress, SilentProgress


@dataclass(frozen=True)
class Distance:
    """KL(policy‖reference) per answer, nats, (n,) arrays in the order of the answers."""

    k1: np.ndarray
    """log-ratio of the whole answer: unbiased, noisy, can be negative."""
    k3: np.ndarray
    """Σ over tokens of (ratio − 1 − log ratio), ratio = ρ/π: never negative; unbiased per token."""
    exact: np.ndarray
    """Σ over tokens of the KL between the two next-token distributions."""


@dataclass(frozen=True)
class Divergence:
    """What one pass over the answers measured."""

    references: dict[str, Distance]
    logprob: np.ndarray
    """(n,) log-probability of each answer under the policy at the given temperature, nats."""
    entropy: np.ndarray
    """(n,) mean entropy of the policy's next-token distributions along each answer, nats."""


@torch.inference_mode()
def measure(
    policy: torch.nn.Module,
    references: Mapping[str, torch.nn.Module],
    items: Sequence[Tokens],
    *,
    pad: int,
    temperature: float = 1.0,
    batch_tokens: int = 16384,
    progress: Progress | None = None,
) -> Divergence:
    """Compare `policy` with every reference on the policy's own answers.

    All processes call it; each makes some of the forward passes, and all get all results. The
    models are whole in each, or all sharded.

    Args:
        items: prompt and response ids; an answer without tokens has distance 0.
        pad: id that fills batches.
        temperature: sampling temperature of the answers. It is applied to all models, so that the
            estimates are unbiased for the distribution that was sampled from.
        batch_tokens: maximum tokens of one forward pass, padding included.
    """
    progress = progress or SilentProgress()
    n = len(items)
    logprob, entropy = np.zeros(n), np.zeros(n)
    distances = {name: Distance(np.zeros(n), np.zeros(n), np.zeros(n)) for name in references}
    device = next(policy.parameters()).device
    progress.begin("KL", total=n, unit="answers")
    # Longest first: what does not fit into memory fails early.
    batches = padding.micro_batches([len(item) for item in items], batch_tokens)[::-1]
    own_batches = distributed.deal(batches)
    for number in range(rounds(policy, len(own_batches))):
        counted = number < len(own_batches)
        batch = own_batches[number] if counted else batches[-1]  # other processes have more
        ids, mask, in_response = _padded([items[i] for i in batch], pad, device)
        counts = [len(items[i].response) for i in batch]
        own = _log_softmax(policy, ids, mask, in_response, temperature)
        targets = ids[:, 1:][in_response]
        own_taken = own.gather(1, targets[:, None])[:, 0]
        if counted:
            _scatter(logprob, batch, counts, own_taken)
            _scatter(entropy, batch, counts, -(own.exp() * own).sum(1), mean=True)
        for name, model in references.items():
            other = _log_softmax(model, ids, mask, in_response, temperature)
            if not counted:
                continue
            gap = own_taken - other.gather(1, targets[:, None])[:, 0]
            _scatter(distances[name].k1, batch, counts, gap)
            _scatter(distances[name].k3, batch, counts, torch.expm1(-gap) + gap)
            _scatter(distances[name].exact, batch, counts, (own.exp() * (own - other)).sum(1))
        progress.advance(len(batch) if counted else 0)
    return Divergence(
        {
            name: Distance(*map(distributed.merged, (found.k1, found.k3, found.exact)))
            for name, found in distances.items()
        },
        distributed.merged(logprob),
        distributed.merged(entropy),
    )


def _padded(
    items: Sequence[Tokens], pad: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Right-padded ids (b, t), mask (b, t), and a mask (b, t−1) of the response tokens."""
    ids = padding.pad([item.ids for item in items], pad)
    mask = padding.pad([[1] * len(item) for item in items], 0)
    responses = [[0] * (len(item.prompt) - 1) + [1] * len(item.response) for item in items]
    in_response = padding.pad(responses, 0, width=ids.shape[1] - 1).bool()
    return ids.to(device), mask.to(device), in_response.to(device)


def _log_softmax(
    model: torch.nn.Module, ids: Tensor, mask: Tensor, in_response: Tensor, temperature: float
) -> Tensor:
    """(m, vocabulary) log-probabilities, float32, at the m response positions, row by row."""
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1][in_response]
    return torch.log_softmax(logits.float() / temperature, dim=-1)


def _scatter(
    target: np.ndarray, batch: list[int], counts: list[int], values: Tensor, mean: bool = False
) -> None:
    start = 0
    flat = values.double().cpu().numpy()
    for index, count in zip(batch, counts, strict=True):
        if count:
            part = flat[start : start + count]
            target[index] = part.mean() if mean else part.sum()
        start += count
