"""How far a policy has moved, measured on the answers it gives now.

For an answer y ~ π the log-ratio log π(y|x) − log ρ(y|x) is an unbiased estimate of KL(π‖ρ) in nats
per answer (k1); Schulman's k3 has the same mean and less variance where the two are near
(http://joschu.net/blog/kl-approx.html). Summing the exact KL of the next-token distributions along
y (Rao-Blackwell, Amini et al. 2025, arXiv 2504.10637) is unbiased too, and never noisier than k1.
It is the one we report; the others stay beside it as a check.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alignment.models import padding
from alignment.models.chat_renderer import Tokens
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

    Args:
        items: prompt and response ids; answers without a token count 0 everywhere.
        temperature: the one the answers were sampled at. All models are tempered alike, so that
            the estimates are unbiased for the distribution that was sampled from.
        batch_tokens: tokens, padding included, of one forward pass.
    """
    progress = progress or SilentProgress()
    n = len(items)
    logprob, entropy = np.zeros(n), np.zeros(n)
    found = {name: Distance(np.zeros(n), np.zeros(n), np.zeros(n)) for name in references}
    progress.begin("KL", total=n, unit="answers")
    # Longest first: what does not fit into memory shows early.
    for batch in reversed(padding.micro_batches([len(item) for item in items], batch_tokens)):
        ids, mask, wanted = _padded([items[i] for i in batch], pad, _device(policy))
        counts = [len(items[i].response) for i in batch]
        own = _log_softmax(policy, ids, mask, wanted, temperature)
        targets = ids[:, 1:][wanted]
        own_taken = own.gather(1, targets[:, None])[:, 0]
        own_entropy = -(own.exp() * own).sum(1)
        _scatter(logprob, batch, counts, own_taken)
        _scatter(entropy, batch, counts, own_entropy, mean=True)
        for name, model in references.items():
            other = _log_softmax(model, ids, mask, wanted, temperature)
            gap = own_taken - other.gather(1, targets[:, None])[:, 0]
            _scatter(found[name].k1, batch, counts, gap)
            _scatter(found[name].k3, batch, counts, torch.expm1(-gap) + gap)
            _scatter(found[name].exact, batch, counts, (own.exp() * (own - other)).sum(1))
        progress.advance(len(batch))
    return Divergence(found, logprob, entropy)


def _padded(
    items: Sequence[Tokens], pad: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Right-padded ids (b, t), mask (b, t), and which of the t−1 predictions are of responses."""
    ids = padding.pad([item.ids for item in items], pad)
    mask = padding.pad([[1] * len(item) for item in items], 0)
    predicted = [[0] * (len(item.prompt) - 1) + [1] * len(item.response) for item in items]
    wanted = padding.pad(predicted, 0, width=ids.shape[1] - 1).bool()
    return ids.to(device), mask.to(device), wanted.to(device)


def _log_softmax(
    model: torch.nn.Module, ids: Tensor, mask: Tensor, wanted: Tensor, temperature: float
) -> Tensor:
    """(m, vocabulary) log-probabilities, float32, at the m wanted positions in row order."""
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1][wanted]
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


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device
