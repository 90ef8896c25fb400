"""Which categories are said to be forgotten."""

from __future__ import annotations

import pandas as pd

from alignment.evaluation.forgetting import forgetting


def scores(prompts: range, score: float) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "prompt_id": [f"p{number:02}" for number in prompts],
            "domain": "helpfulness",
            "category": "rhyme",
            "gold_helpfulness": [score + number % 3 / 10 for number in prompts],
        }
    )


def flag(common: int) -> bool:
    """A category of 12 prompts that lost a point, `common` of which were answered before."""
    sides = {"sft": scores(range(12 - common, 24), 1.0), "rlhf-v1": scores(range(12), 0.0)}
    (row,) = forgetting("rlhf-v1", sides, "gold", seed=1, samples=200)
    assert row["n"] == 12
    return bool(row["forgotten"])


def test_a_loss_on_few_common_prompts_is_no_proof() -> None:
    """On one prompt an interval has no width."""
    assert [flag(common) for common in (1, 9, 10, 12)] == [False, False, True, True]
