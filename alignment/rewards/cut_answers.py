"""What an answer that was cut at the token limit is worth: never more than one that ended."""

from __future__ import annotations

import numpy as np


def floored(scores: np.ndarray, finished: np.ndarray) -> np.ndarray:
    """Scores in which no cut answer is worth more than the worst finished one beside it.

    A reward model is made to compare answers that ended. Without an end an answer may score higher,
    by more than any fixed penalty takes off, and never ending would pay. Where nothing ended there
    is nothing to outbid, and the scores stay.

    Args:
        scores: (..., n), answers that compete along the last axis.
        finished: booleans of the same shape.
    """
    lowest = np.where(finished, scores, np.inf).min(axis=-1, keepdims=True)
    return np.where(finished, scores, np.minimum(scores, lowest))
