"""Draws one token per row from logits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from alignment.inference.counter_noise import GumbelNoise
from alignment.inference.truncate import doubtful_masks, keep_mask
from alignment.inference.types import SamplingSettings


@dataclass
class Drawn:
    """One drawn token per row.

    Attributes:
        tokens: [rows].
        logprobs: [rows] at the temperature, before top-k and top-p.
        scores: [rows, vocabulary] logits divided by the temperature, float32.
        close: [rows] whether another token might have won; `None` if no slack was given.
    """

    tokens: torch.Tensor
    logprobs: torch.Tensor
    scores: torch.Tensor
    close: torch.Tensor | None


def draw(
    logits: torch.Tensor,
    keys: torch.Tensor,
    gumbel: GumbelNoise,
    settings: SamplingSettings,
    slack: float | None = None,
) -> Drawn:
    """Draw a token for each row.

    Args:
        logits: [rows, vocabulary] of the model; overwritten.
        keys: [rows, 2] of this step, see `step_keys`.
        gumbel: the noise.
        settings: temperature, top-k and top-p.
        slack: bound of the error of each logit divided by the temperature. Rows in which such an
            error could change the winner are marked in `close`; `None` marks no rows.
    """
    scores = logits.float()
    if settings.temperature not in (0.0, 1.0):
        scores = scores.div_(settings.temperature)
    highest = scores.amax(dim=-1, keepdim=True)
    chance = torch.sub(scores, highest).exp_()
    total = chance.sum(dim=-1).log_().add_(highest.squeeze(-1))
    surely = None
    if slack is None:
        maybe = keep_mask(scores, settings.top_k, settings.top_p)
    else:
        masks = doubtful_masks(scores, settings.top_k, settings.top_p, slack)
        maybe, surely = masks if masks is not None else (None, None)
    if maybe is not None:
        chance.masked_fill_(~maybe, 0.0)
    if settings.temperature > 0:
        chance.div_(gumbel.exponential(keys))
    best, tokens = chance.max(dim=-1, keepdim=True)
    logprobs = scores.gather(-1, tokens).squeeze(-1) - total
    close = None
    if slack is not None:
        second = chance.scatter_(-1, tokens, 0.0).amax(dim=-1, keepdim=True)
        close = second >= best * math.exp(-2 * slack)
        if surely is not None:
            close |= ~surely.gather(-1, tokens)
        close = close.squeeze(-1)
    return Drawn(tokens.squeeze(-1), logprobs, scores, close)
