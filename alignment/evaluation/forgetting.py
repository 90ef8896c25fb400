"""Has a version lost something that an earlier one could do?

Llama 2 §3.2.3: RLHF-V3, trained on its own best samples only, "struggled more than previous
versions to compose rhyming lines". The average hides such a loss, so each category of prompts is
compared on its own with the best earlier version in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from alignment.evaluation.judging import paired
from alignment.seeds import derive_seed
from alignment.statistics import bootstrap_mean


def forgetting(
    side: str,
    sides: Mapping[str, pd.DataFrame],
    judge: str,
    *,
    seed: int,
    samples: int,
    level: float,
) -> list[dict[str, Any]]:
    """One row per domain and category: this side's mean score, and the paired difference to the
    best earlier side with its interval; `forgotten` where the whole interval lies below zero.

    The best of several earlier versions owes a part of its lead to luck, so a flag on a category of
    few prompts is a reason to read its answers, not yet a proof. Without earlier sides the rows
    have scores only.
    """
    own = sides[side]
    earlier = {name: table for name, table in sides.items() if name != side}
    rows = []
    for (domain, category), mine in own.groupby(["domain", "category"], sort=True):
        column = f"{judge}_{domain}"
        row: dict[str, Any] = {
            "side": side,
            "domain": str(domain),
            "category": str(category),
            "judge": judge,
            "n": len(mine),
            "score": float(mine[column].mean()),
        }
        best: tuple[float, str] | None = None
        for name, table in earlier.items():
            theirs = table[(table.domain == domain) & (table.category == category)]
            if len(theirs) and (best is None or theirs[column].mean() > best[0]):
                best = (float(theirs[column].mean()), name)
        if best is not None:
            theirs = earlier[best[1]]
            left, right = paired(
                mine, theirs[(theirs.domain == domain) & (theirs.category == category)]
            )
            interval = bootstrap_mean(
                (left[column] - right[column]).to_numpy(float),
                seed=derive_seed(seed, "forgetting", category),
                samples=samples,
                level=level,
            )
            row |= {
                "best": best[1],
                "best_score": best[0],
                "difference": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "forgotten": bool(interval.high < 0),
            }
        rows.append(row)
    return rows
