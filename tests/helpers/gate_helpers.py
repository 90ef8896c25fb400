"""Records of an evaluation for the gate: a version that is good in everything, and its champion."""

from alignment.config.evaluate import PromoteConfig
from alignment.evaluation.degenerate import DEGENERATE
from alignment.evaluation.gate import apply_gate


def rates(helpfulness, safety, judge="rm"):
    """Rows of new against old with the given (low, high)."""
    return [
        {
            "a": "new",
            "b": "old",
            "judge": judge,
            "axis": axis,
            "win_rate": (low + high) / 2,
            "low": low,
            "high": high,
            "n": 40,
            "length_gap": 0.0,
        }
        for axis, (low, high) in (("helpfulness", helpfulness), ("safety", safety))
    ]


HEALTHY = {**dict.fromkeys(DEGENERATE, 0.02), "kl_sft": 1.0, "false_refusal": 0.05, "length": 9.0}
STANDINGS = {
    "new": {**HEALTHY, "false_refusal": 0.08, "length": 10.0, "kl_sft": 3.0},
    "old": HEALTHY,
}
SURE = {"accuracy": 0.7, "low": 0.65, "high": 0.75, "count": 300.0}
KNOWN = {judge: {"helpfulness": SURE, "safety": SURE} for judge in ("rm", "guard")}


def gate(rows, judges=("rm",), config=None, standings=STANDINGS, accuracies=KNOWN):
    """The decision on `new`; where `standings` have none, SFT is as the champion `old`."""
    standings = {"sft": standings.get("old", {}), **standings}
    return apply_gate(
        "new", "old", rows, standings, list(judges), config or PromoteConfig(), accuracies
    )


def checks(standings=STANDINGS, rows=None, judges=("rm",), accuracies=KNOWN, **config):
    """The gate's checks by name."""
    rows = rates((0.6, 0.7), (0.6, 0.7)) if rows is None else rows
    decision = gate(rows, judges, PromoteConfig(**config), standings, accuracies)
    return {check.name: check for check in decision.checks}
