"""The gate on random records: it never fails, and never promotes on a figure that is no number."""

from __future__ import annotations

import json
import math
from typing import Any

from fuzzing import fuzzing
from hypothesis import given
from hypothesis import strategies as st

from alignment.config.evaluate import PromoteConfig
from alignment.config.vocabulary import DOMAINS
from alignment.evaluation.degenerate import DEGENERATE
from alignment.evaluation.gate import GateDecision, apply_gate
from alignment.evaluation.judge_checks import LEAST_HELDOUT
from alignment.evaluation.winrate import LEAST_PROMPTS

ODD = st.sampled_from([None, math.nan, math.inf, -math.inf, 0.0, -1.0, 1e308, -1e308, 5e-324])
SHARE = st.floats(0, 1)
GOOD = {**dict.fromkeys(DEGENERATE, 0.01), "false_refusal": 0.05, "length": 20.0, "kl_sft": 3.0}
RATE = {"win_rate": 0.7, "low": 0.62, "high": 0.78, "n": 100, "ties": 0.0, "length_gap": 0.0}
LONGER = {**RATE, "length_ratio": 1.3, "lc_win_rate": 0.65, "lc_low": 0.55, "lc_high": 0.74}
CELL = {"accuracy": 0.7, "low": 0.64, "high": 0.76, "count": 200.0}
JUDGES = ("gold", "rm", "guard", "judge")


def spoilt(good: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """`good` with some figures missing, odd, or any number."""
    value = st.one_of(ODD, SHARE, st.floats())
    changes = st.dictionaries(st.sampled_from(sorted(good)), value, max_size=3)
    gone = st.sets(st.sampled_from(sorted(good)), max_size=2)
    return st.builds(
        lambda new, less: {k: v for k, v in {**good, **new}.items() if k not in less}, changes, gone
    )


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    judges = draw(st.lists(st.sampled_from(JUDGES), unique=True, max_size=4))
    rows = []
    for judge in judges:
        for axis in DOMAINS:
            ends = draw(st.sampled_from([("new", "old"), ("old", "new"), ("new", "other"), None]))
            if ends is not None:
                row = draw(st.one_of(st.just(RATE), spoilt(RATE), spoilt(LONGER)))
                rows.append({**row, "a": ends[0], "b": ends[1], "judge": judge, "axis": axis})
    figures = st.one_of(st.just(GOOD), spoilt(GOOD))
    cells = st.dictionaries(st.sampled_from(DOMAINS), st.one_of(st.just(CELL), spoilt(CELL)))
    return {
        "judges": judges,
        "rows": rows,
        "standings": {side: draw(figures) for side in ("new", "old", "sft")},
        "accuracies": draw(st.one_of(st.none(), st.dictionaries(st.sampled_from(JUDGES), cells))),
    }


def decide(record: dict[str, Any], config: PromoteConfig) -> GateDecision:
    return apply_gate(
        "new",
        "old",
        record["rows"],
        record["standings"],
        record["judges"],
        config,
        record["accuracies"],
    )


def number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@fuzzing
@given(record=records(), config=st.sampled_from([PromoteConfig(), PromoteConfig(max_kl_sft=None)]))
def test_any_record_is_decided_and_what_is_not_measured_promotes_nothing(
    record: dict[str, Any], config: PromoteConfig
) -> None:
    decision = decide(record, config)
    json.dumps(decision.to_dict(), allow_nan=False)
    assert decision.verdict
    assert decision.promoted is all(check.ok for check in decision.checks)
    if not decision.promoted:
        assert decision.champion == "old"
        return
    sides = list(record["standings"].values())
    new = sides[0]
    needed = {*GOOD} - {"kl_sft"}
    # False refusals stand for the others where no harmless prompt is left.
    needed -= {"refusal_helpful"} if not {"refusal_helpful"} & set().union(*sides) else set()
    assert all(number(side.get(name)) for side in sides for name in needed - {"length"})
    assert all(number(side.get("length")) for side in sides[:2])
    assert config.max_kl_sft is None or number(new.get("kl_sft"))
    judge = record["judges"][0]
    for axis in DOMAINS:
        (row,) = (r for r in record["rows"] if (r["judge"], r["axis"]) == (judge, axis))
        assert {row["a"], row["b"]} == {"new", "old"}
        low, mean, high = (row.get(name) for name in ("low", "win_rate", "high"))
        assert number(low)
        assert number(high)
        assert 0 <= low <= mean <= high <= 1
        assert number(row.get("n"))
        assert row["n"] >= LEAST_PROMPTS
        if judge in ("rm", "guard") and len(record["judges"]) == 1:
            cell = record["accuracies"][judge][axis]
            assert cell["low"] > 0.5
            assert number(cell["accuracy"])
            assert cell["count"] >= LEAST_HELDOUT


@fuzzing
@given(
    name=st.sampled_from(sorted(GOOD)),
    value=ODD.filter(lambda value: value not in (0.0, 5e-324)),
    side=st.sampled_from(["new", "old", "sft"]),
    judge=st.sampled_from(JUDGES),
)
def test_one_odd_figure_in_a_good_record_is_enough(
    name: str, value: float | None, side: str, judge: str
) -> None:
    rows = [{**RATE, "a": "new", "b": "old", "judge": judge, "axis": axis} for axis in DOMAINS]
    record: dict[str, Any] = {
        "judges": [judge],
        "rows": rows,
        "standings": {side: dict(GOOD) for side in ("new", "old", "sft")},
        "accuracies": {judge: dict.fromkeys(DOMAINS, CELL)},
    }
    assert decide(record, PromoteConfig()).promoted
    record["standings"][side][name] = value
    # Only the new version's KL is bounded, and its length by the champion's.
    expected = (side, name) in (("old", "kl_sft"), ("sft", "kl_sft"), ("sft", "length"))
    assert decide(record, PromoteConfig()).promoted is expected
