"""Which categories are said to be forgotten."""

from __future__ import annotations

import pandas as pd
import pytest

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
    """Nor is there an interval of one prompt."""
    assert [flag(common) for common in (1, 9, 10, 12)] == [False, False, True, True]


def test_the_best_of_several_must_be_beaten_by_more() -> None:
    """One of five that are alike leads by chance: its interval held 0 in 90 % of cases."""
    own = scores(range(12), 0.0)
    rivals = {f"rlhf-v{i}": scores(range(12), 0.0) for i in range(1, 6)}
    noise = [(number * 5 % 12 - 5.5) / 10 - 0.2 for number in range(12)]
    best = scores(range(12), 0.0).assign(gold_helpfulness=own.gold_helpfulness - noise)
    widths = []
    for earlier in ({"sft": best}, {"sft": best, **rivals}):
        (row,) = forgetting("rlhf-v6", {**earlier, "rlhf-v6": own}, "gold", seed=1, samples=1000)
        assert (row["best"], row["difference"]) == ("sft", pytest.approx(-0.2))
        widths.append(row["high"] - row["low"])
    # Of a normal distribution 2.638/1.960 = 1.35, at 95 % and at 1 − 0.05/6.
    assert 1.2 < widths[1] / widths[0] < 1.6
