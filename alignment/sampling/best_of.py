"""Expected rewards of best-of-n, estimated from one pool of N scored samples per prompt.

Notation: r_(1) ≤ … ≤ r_(N) are a prompt's sorted rewards. A subset of size n drawn without
replacement has r_(i) as its m-th smallest with probability C(i−1, m−1)·C(N−i, n−m) / C(N, n); its
largest is the case m = n. Averages over all subsets are therefore exact sums, unbiased for fresh
draws, without resampling (Nakano et al. 2021; Gao et al. 2022 use them for their curves).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def order_weights(size: int, n: int, m: int) -> np.ndarray:
    """P(r_(i) is the m-th smallest of a random n-subset of `size`), for i = 1 … size.

    Raises:
        ValueError: not 1 ≤ m ≤ n ≤ size.
    """
    if not 1 <= m <= n <= size:
        raise ValueError(f"need 1 ≤ m ≤ n ≤ size, got m={m}, n={n}, size={size}")
    # Exact integers and a single division: accurate to the last digit for any size.
    total = math.comb(size, n)
    return np.array(
        [math.comb(i - 1, m - 1) * math.comb(size - i, n - m) / total for i in range(1, size + 1)]
    )


def expected_best(rewards: np.ndarray, n: int) -> np.ndarray:
    """Expected largest of n of the N rewards: [prompts] from [prompts, N]."""
    best: np.ndarray = np.sort(rewards, axis=-1) @ order_weights(rewards.shape[-1], n, n)
    return best


def expected_median(rewards: np.ndarray, n: int) -> np.ndarray:
    """Expected median of n of the N rewards: [prompts] from [prompts, N]."""
    size = rewards.shape[-1]
    weights = (order_weights(size, n, (n + 1) // 2) + order_weights(size, n, n // 2 + 1)) / 2
    median: np.ndarray = np.sort(rewards, axis=-1) @ weights
    return median


def curves(rewards: np.ndarray, counts: Sequence[int] | None = None) -> list[dict[str, float]]:
    """Llama 2's Figure 7: mean over prompts of largest and median reward against n.

    Args:
        rewards: [prompts, N].
        counts: values of n; all from 1 to N if left out.

    Returns:
        One row per n: `n`, `best`, `best_error` (standard error over prompts), `median`,
        `kl_bound`.
    """
    prompts, size = rewards.shape
    rows = []
    for n in counts if counts is not None else range(1, size + 1):
        best = expected_best(rewards, n)
        error = best.std(ddof=1) / math.sqrt(prompts) if prompts > 1 else math.nan
        rows.append(
            {
                "n": n,
                "best": float(best.mean()),
                "best_error": float(error),
                "median": float(expected_median(rewards, n).mean()),
                "kl_bound": kl_bound(n),
            }
        )
    return rows


def kl_bound(n: int) -> float:
    """log n − (n−1)/n nats: an UPPER BOUND on KL(best-of-n ‖ policy), not a measured KL."""
    return math.log(n) - (n - 1) / n


def kl_estimate(n: int, logprob: np.ndarray) -> np.ndarray:
    """A tighter estimate of KL(best-of-n ‖ policy) from log π of the selected answers.

    With ε = π(selected): (1−ε)ⁿ·(log n + (n−1)·log(1−ε) − (n−1)/n)
    + (1−(1−ε)ⁿ)·log((1−(1−ε)ⁿ)/ε) (Beirami et al. 2024). For ε → 0 it is the bound; where few
    answers are possible it stays below it.
    """
    epsilon = np.exp(np.minimum(logprob, -1e-12))
    log_rest = np.log1p(-epsilon)
    missed = np.exp(n * log_rest)
    hit = -np.expm1(n * log_rest)
    tail = np.where(hit > 0, np.log(np.where(hit > 0, hit, 1.0)) - logprob, math.log(n))
    kl: np.ndarray = missed * (math.log(n) + (n - 1) * log_rest - (n - 1) / n) + hit * tail
    return kl


def distinct_rate(texts: Sequence[Sequence[str]]) -> float:
    """Mean over prompts of (different answers) / (answers)."""
    if not texts:
        return math.nan
    return float(np.mean([len(set(answers)) / len(answers) for answers in texts]))
