"""Detects forgetting: a skill of an earlier version that a later one has lost.

Llama 2 §3.2.3: RLHF-V3, trained on its own best samples only, "struggled more than previous
versions to compose rhyming lines". An average hides such a loss, so each category of prompts is
compared with the best earlier version in that category.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from alignment.evaluation.judging import by_prompt
from alignment.evaluation.responses import subject_numbers
from alignment.evaluation.winrate import LEAST_PROMPTS, LEVEL
from alignment.utils.seeds import derive_seed
from alignment.utils.statistics import bootstrap_mean


def is_forgotten(row: Mapping[str, Any]) -> bool:
    """Whether a row says so; releases before 0.2 said it of smaller categories too."""
    return bool(row.get("forgotten")) and row["n"] >= LEAST_PROMPTS


def forgetting(
    side: str,
    sides: Mapping[str, pd.DataFrame],
    judge: str,
    *,
    seed: int,
    samples: int,
) -> list[dict[str, Any]]:
    """Compare a side with the best earlier side in each category.

    The best of several sides owes part of its lead to chance, so the interval is so wide that the
    differences from all of them lie within theirs at once (Bonferroni).

    Args:
        side: the side under test.
        sides: side → scored answers, of `side` and of all earlier sides.
        judge: whose scores are compared.
        seed, samples: seed and resamples of the bootstrap.

    Returns:
        One row per domain and category: the side's mean score, and the paired difference from the
        best earlier side with its interval; `forgotten` if the whole interval is below zero and
        both answered `LEAST_PROMPTS` prompts of the category.
        Without earlier sides the rows have scores only.
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
            name: by_category[key]
            for name, by_category in groups.items()
            if name != side and key in by_category
        }
        if earlier:
            best = max(earlier, key=lambda name: float(earlier[name].mean()))
            gaps = (own - earlier[best]).dropna()
            asked = by_prompt(sides[side]).loc[gaps.index]
            gap_seed = derive_seed(seed, "forgetting", *key)
            interval = bootstrap_mean(
                gaps.to_numpy(float),
                seed=gap_seed,
                samples=samples,
                level=1 - (1 - LEVEL) / len(earlier),
                clusters=subject_numbers(asked),
            )
            row |= {
                "best": best,
                "best_score": float(earlier[best].mean()),
                "difference": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "forgotten": bool(interval.high < 0) and len(gaps) >= LEAST_PROMPTS,
            }
        rows.append(row)
    return rows
