"""The losses of a reward model: pure functions of scores.

Notation: r_c, r_r are the scores of the chosen and the rejected answer, m the margin of the
comparison's strength, σ the logistic function.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus

from alignment.config.rewards import Margins


def margins_of(strengths: list[str], table: Margins) -> list[float]:
    """The margin of each comparison's strength (Llama 2, Table 27).

    Raises:
        KeyError: a strength is not one of the four.
    """
    by_name = dict[str, float](table.items())
    return [by_name[strength] for strength in strengths]


def ranking_loss(chosen: Tensor, rejected: Tensor, margin: Tensor | float = 0.0) -> Tensor:
    """−log σ(r_c − r_r − m), Llama 2 eq. 2; with m = 0 eq. 1. All (n,), returns (n,)."""
    return softplus(margin - (chosen - rejected))


def label_loss(scores: Tensor, safe: Tensor) -> Tensor:
    """−log σ(±r): + where the answer is safe (1), − where it is not (0). Both (n,), returns (n,).

    Llama 2 mentions an auxiliary safety loss without a formula. This is the sign term of
    Safe-RLHF's cost model (2310.12773, eq. 6) on each answer's own label. Score 0 then means "as
    likely safe as not", which is the threshold 0.5 of Table 29.
    """
    return softplus((1 - 2 * safe) * scores)
