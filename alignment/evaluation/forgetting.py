"""Has a version lost something that an earlier one could do?

Llama 2 §3.2.3: RLHF-V3, trained on its own best samples only, "struggled more than previous
versions to compose rhyming lines". The average hides such a loss, so each category of prompts is
compared on its own with the best earlier version in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from alignment.evaluation.judging import by_prompt
from alignment.utils.seeds import derive_seed
from alignment.utils.statistics import bootstrap_mean


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
    groups = {
        name: {
            (str(domain), str(category)): by_prompt(rows)[f"{judge}_{domain}"]
            for (domain, category), rows in table.groupby(["domain", "category"], sort=True)
        }
        for name, table in sides.items()
    }
    rows = []
    for key, own in groups[side].items():
        row: dict[str, Any] = {
            "side": side,
            "domain": key[0],
            "category": key[1],
            "judge": judge,
            "n": len(own),
            "score": float(own.mean()),
        }
        earlier = {
            name: found[key] for name, found in groups.items() if name != side and key in found
        }
        if earlier:
            best = max(earlier, key=lambda name: float(earlier[name].mean()))
            gaps = (own - earlier[best]).dropna().to_numpy(float)
            interval = bootstrap_mean(
                gaps,
                seed=derive_seed(seed, "forgetting", *key),
                samples=samples,
                level=level,
            )
            row |= {
                "best": best,
                "best_score": float(earlier[best].mean()),
                "difference": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "forgotten": bool(interval.high < 0),
            }
        rows.append(row)
    return rows
