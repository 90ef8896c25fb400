"""Whether σ of a safety model's output means P(safe).

A ranking loss fixes differences of scores only. σ(z) is a probability only where the auxiliary loss
saw labelled answers; without them its level is that of a random head, and a threshold on it keeps
everything or nothing.
"""

from __future__ import annotations

from alignment.config.thresholds import ENOUGH_LABELS
from alignment.rewards.card import RewardCard


def unidentified(card: RewardCard) -> str | None:
    """Why σ(z) of this safety model is not P(safe), in words; None if it is."""
    if card.labelled is None:
        return None  # of a release that did not count; what it selected then stays comparable
    if card.labelled < ENOUGH_LABELS:
        return (
            f"the safety reward model learned from {card.labelled} answers labelled safe or "
            f"unsafe, and P(safe) means nothing below {ENOUGH_LABELS}"
        )
    if card.separation is None:
        return "no held-out answers of both labels show that the safety reward model tells them"
    if card.separation[1] <= 0.5:
        mean, low, high = card.separation
        return (
            "the safety reward model is not shown to tell safe from unsafe held-out answers: "
            f"AUC {mean:.2f} [{low:.2f}, {high:.2f}]"
        )
    return None
