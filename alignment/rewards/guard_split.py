"""Which comparisons a guard reward model learns from: those the main model never sees.

Training climbs the main models' mistakes. A guard that was trained on other prompts does not share
all of them, so its score stops rising when the policy exploits the main model (Gao et al.,
2210.10760; Llama 2 §3.4.1 watches its own reward models with one trained on other data).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from alignment.preferences.schema import Comparison, framed
from alignment.rewards.evaluate import cell
from alignment.rewards.heldout_scores import Measured
from alignment.rewards.mixture import Source
from alignment.utils.statistics import correlation

SALT = "guard"  # no other split by hash follows this one


def is_guards(row: Comparison, share: float) -> bool:
    """Whether a comparison belongs to the guard: by the hash of how its conversation opens, so that
    a prompt is on the same side in every batch and a later turn never quotes the other side."""
    parts = [SALT]
    for message in row.conversation:
        parts += (message["role"], message["content"])
        if message["role"] == "user":
            break
    digest = hashlib.sha256(framed(*parts).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def share_out(sources: Sequence[Source], share: float, *, guard: bool) -> list[Source]:
    """The guard's comparisons, or the main model's: the two have no prompt in common."""
    if share <= 0:
        return [] if guard else list(sources)
    return [source for source in sources if is_guards(source.comparison, share) == guard]


def agreement(main: Measured, guard: Measured, *, seed: int, samples: int) -> dict[str, Any]:
    """How far two models say the same about the same held-out comparisons.

    Returns:
        `same`: share of pairs that both rank alike, with interval; `chance`: what two models of
        these accuracies would agree on if their errors had nothing in common; `both_wrong`: share
        that both rank wrong; `gap_correlation`: Pearson's r of the two reward gaps.
    """
    left, right = main.right, guard.right
    alike = (left == right).astype(float)
    p, q = (float(values.mean()) if len(values) else float("nan") for values in (left, right))
    return {
        "same": cell(alike, seed, samples, "agreement"),
        "chance": p * q + (1 - p) * (1 - q),
        "both_wrong": float(((left == 0) & (right == 0)).mean()) if len(left) else float("nan"),
        "main_accuracy": p,
        "guard_accuracy": q,
        "gap_correlation": correlation(
            _both_signs(main.chosen - main.rejected), _both_signs(guard.chosen - guard.rejected)
        ),
    }


def _both_signs(gaps: np.ndarray) -> np.ndarray:
    """Either order of a pair, so that "chosen first" makes no correlation by itself."""
    return np.concatenate([gaps, -gaps])
