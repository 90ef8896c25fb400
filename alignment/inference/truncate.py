"""Top-k and top-p: which tokens may be drawn. Equal to transformers' logits processors."""

from __future__ import annotations

import torch


def keep_mask(logits: torch.Tensor, top_k: int = 0, top_p: float = 1.0) -> torch.Tensor | None:
    """Which tokens top-k, then top-p (on what top-k left) keep; `None` if both are off.

    Args:
        logits: [rows, vocabulary], divided by the temperature already.
    """
    keep = None
    if 0 < top_k < logits.shape[-1]:
        keep = logits >= torch.topk(logits, top_k, dim=-1).values[..., -1:]
    if top_p < 1.0:
        cut = logits if keep is None else logits.masked_fill(~keep, -torch.inf)
        ordered, order = torch.sort(cut, dim=-1, descending=False)
        dropped = ordered.softmax(dim=-1).cumsum(dim=-1) <= 1.0 - top_p
        dropped[..., -1] = False
        kept = ~dropped.scatter(-1, order, dropped)
        keep = kept if keep is None else keep & kept
    return keep


def doubtful_masks(
    logits: torch.Tensor, top_k: int, top_p: float, slack: float
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """`(maybe, surely)`: tokens that `keep_mask` might keep, and surely keeps, if every logit may
    be wrong by `slack`; `None` if both filters are off."""
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
        # What top-k cuts changes the probabilities top-p looks at: doubt there is doubt of the row.
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
