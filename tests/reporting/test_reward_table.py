"""What `align rewards` prints, from figures made by hand."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import numpy as np
from reward_helpers import scored
from rich.console import Console

from alignment.reporting.reward_table import reward_tables
from alignment.rewards.evaluate import beside_near_copies, evaluate, moved
from alignment.rewards.guard_split import agreement
from alignment.rewards.learning_curve import growth
from alignment.rewards.stage_metrics import plain


def figures(*, later: bool) -> dict[str, Any]:
    """As the stage writes them, read back from JSON."""
    place = np.arange(400)
    worse, better = scored(place % 10 < 6), scored(place % 10 < 7)
    found = evaluate(better, "helpfulness", seed=0, samples=50)
    found["versions"] = {"b": "rlhf-v2"}
    found["training"] = {"pairs": 1234}
    found["newest"] = {"batch": "b", **moved(better, worse if later else None, seed=0, samples=50)}
    found["near_copies"] = beside_near_copies(better, place % 4 == 0)
    models = {"rlhf-v1": (600, worse)} if later else {}
    found["growth"] = growth({**models, "rlhf-v2": (1234, better)}, seed=0, samples=50)
    if later:
        found["agreement"] = agreement(worse, better)
    read: dict[str, Any] = json.loads(json.dumps(plain(found), allow_nan=False))
    return read


def shown(found: dict[str, dict[str, Any]], width: int = 140) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(reward_tables("rlhf-v2", found))
    return console.export_text()


def test_a_first_version() -> None:
    text = shown({"reward_helpfulness": figures(later=False)})
    assert "Reward models of rlhf-v2" in text
    assert "70.0 [" in text
    assert "1,234 comparisons learned from" in text
    # Nothing is unsafe here, and there is no curve yet.
    assert "unsafe" not in text
    assert "twice the comparisons" not in text


def test_a_later_version_with_a_guard() -> None:
    found = figures(later=True)
    text = shown({"reward_helpfulness": found, "guard_helpfulness": found})
    assert "previous model" in text
    assert "+10.0 points" in text
    assert "growth on the same comparisons: 60.0 % at 600, 70.0 % at 1,234" in text
    assert "twice the comparisons (2,468)" in text
    assert "one point more:" in text
    assert "helpfulness guard" in text
    # 60 % are right with both, 30 % wrong with both.
    assert "agrees with the main model on 90.0 [" in text
    assert "both wrong on 30.0 %" in text


def test_near_copies_of_training_prompts_are_told_apart() -> None:
    found = figures(later=False)
    # Of the multiples of 4 one of five ends in 8, of 7, 8 and 9, which are ranked wrong.
    assert "near copies: 80.0 [" in (text := shown({"reward_helpfulness": found}))
    assert "on 100 comparisons whose prompt training almost has, 66.7 [" in text
    del found["near_copies"]  # as in work of before 0.2
    assert "near copies" not in shown({"reward_helpfulness": found})


def test_a_gain_on_one_opening_has_no_interval() -> None:
    found = figures(later=True)
    found["newest"]["gain"] |= {"low": None, "high": None}
    assert "+10.0 points)" in shown({"reward_helpfulness": found})


def test_a_narrow_terminal_loses_no_figure() -> None:
    found = {"reward_helpfulness": figures(later=True), "guard_helpfulness": figures(later=True)}
    wide, narrow = shown(found), shown(found, width=80)
    assert "…" not in narrow
    assert max(map(len, narrow.splitlines())) <= 80

    def intervals(text: str) -> list[str]:
        return sorted(re.findall(r"\d+\.\d \[\d+–\d+\]", text))

    assert intervals(narrow) == intervals(wide)
