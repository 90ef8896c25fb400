"""Splits off the comparisons that a guard reward model learns from, which the main one never sees.

Policy training exploits the main model's errors. A guard that was trained on other prompts does not
share all of them, so its score stops rising when the policy exploits the main model (Gao et al.,
2210.10760; Llama 2 §3.4.1 checks its reward models with one trained on other data).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from alignment.preferences.schema import Comparison, framed, opening
from alignment.rewards.evaluate import cell
from alignment.rewards.heldout_scores import Measured
from alignment.rewards.mixture import Source
from alignment.utils.statistics import correlation

SALT = "guard"  # makes this split independent of other splits by hash


def is_guards(row: Comparison, share: float) -> bool:
    """Whether a comparison belongs to the guard.

    The hash of the conversation's first user turn decides, so that a prompt is on the same side in
    every batch, and later turns of a conversation stay on that side too.
    """
    framing = framed(SALT, *opening(row.conversation))
    digest = hashlib.sha256(framing.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def share_out(sources: Sequence[Source], share: float, *, guard: bool) -> list[Source]:
    """The guard's comparisons, or the main model's; the two share no prompt."""
    if share <= 0:
        return [] if guard else list(sources)
    return [source for source in sources if is_guards(source.comparison, share) == guard]


def agreement(main: Measured, guard: Measured) -> dict[str, Any]:
    """How far two models agree on the same held-out comparisons.

    Returns:
        `same`: share of pairs that both rank alike, with interval; `chance`: that share if their
        errors were independent; `both_wrong`: share that both rank wrong; `gap_correlation`:
        Pearson's r of the two reward gaps.
    """
    left, right = main.right, guard.right
    alike = (left == right).astype(float)
    p, q = (float(values.mean()) if len(values) else float("nan") for values in (left, right))
    return {
        "same": cell(alike, main.opening),
        "chance": p * q + (1 - p) * (1 - q),
        "both_wrong": float(((left == 0) & (right == 0)).mean()) if len(left) else float("nan"),
        "main_accuracy": p,
        "guard_accuracy": q,
        "gap_correlation": correlation(
            _both_signs(main.chosen - main.rejected), _both_signs(guard.chosen - guard.rejected)
        ),
    }


def _both_signs(gaps: np.ndarray) -> np.ndarray:
    """Both orders of each pair, so that the order cannot create a correlation."""
    return np.concatenate([gaps, -gaps])
