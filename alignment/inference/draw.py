"""Draws one token per row from logits.

The masks of top-k and top-p are equal to those of transformers' processors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from alignment.inference.counter_noise import GumbelNoise
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


def keep_mask(logits: torch.Tensor, top_k: int = 0, top_p: float = 1.0) -> torch.Tensor | None:
    """Mask of the tokens that top-k and then top-p keep; `None` if both are off.

    Args:
        logits: [rows, vocabulary], already divided by the temperature.

    Returns:
        Booleans [rows, vocabulary].
    """
    keep = None
    if 0 < top_k < logits.shape[-1]:
        keep = logits >= torch.topk(logits, top_k, dim=-1).values[..., -1:]
    if top_p < 1.0:
        cut = logits if keep is None else logits.masked_fill(~keep, -torch.inf)
        ordered, order = torch.sort(cut, dim=-1, descending=False)
        dropped = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1.0 - top_p
        dropped[..., -1] = False
        nucleus = ~dropped.scatter(-1, order, dropped)
        keep = nucleus if keep is None else keep & nucleus
    return keep


def doubtful_masks(
    logits: torch.Tensor, top_k: int, top_p: float, slack: float
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """`keep_mask` for logits that may each be wrong by `slack`.

    Returns:
        `(maybe, surely)`, booleans [rows, vocabulary]: tokens that may be kept, and tokens that are
        kept in any case. `None` if both filters are off.
    """
    vocabulary = logits.shape[-1]
    use_k, use_p = 0 < top_k < vocabulary, top_p < 1.0
    if not use_k and not use_p:
        return None
    maybe = torch.ones_like(logits, dtype=torch.bool)
    surely = maybe.clone()
    cut = logits
    if use_k:
        best = torch.topk(logits, top_k + 1, dim=-1).values
        last, after = best[..., -2:-1], best[..., -1:]
        maybe = logits >= last - 2 * slack
        surely = (logits >= last) & (logits > after + 2 * slack)
        cut = logits.masked_fill(logits < last, -torch.inf)
    if use_p:
        # Top-k changes the probabilities for top-p, so a doubt there puts the whole row in doubt.
        sure_row = (maybe == surely).all(dim=-1, keepdim=True)
        ordered = torch.sort(cut, dim=-1, descending=False).values
        below = ordered.softmax(dim=-1).cumsum(dim=-1)
        # A logit error δ moves a cumulative probability c by at most 2δ·c(1−c) ≤ δ/2.
        early = below <= 1.0 - top_p - slack / 2
        late = below <= 1.0 - top_p + slack / 2
        early[..., -1] = False
        late[..., -1] = False
        edge = ordered.masked_fill(early, torch.inf).amin(dim=-1, keepdim=True)
        highest_dropped = ordered.masked_fill(~late, -torch.inf).amax(dim=-1, keepdim=True)
        maybe = maybe & (logits >= edge - 2 * slack)
        surely = surely & (logits > highest_dropped + 2 * slack) & sure_row
    return maybe, surely
