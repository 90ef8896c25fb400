"""Decide from the evaluation whether this version is the new champion.

Output: decision.json with `promoted`, `champion` (after the decision), `verdict` and `checks`.
"""

from __future__ import annotations

from alignment.config.vocabulary import version_order
from alignment.evaluation.gate import apply_gate
from alignment.stages.context import StageContext
from alignment.utils.files import atomic_write_json, read_json

CODE_VERSION = "12"
# 3 renamed checks and decides alike; 4 asks for more; 5 says more often that no judge is
# independent, 6 whose figure is missing, 7 why a guard had no say, 8 less often that reward models
# decide alone, 9 whose false refusals cannot be told; 10 lets pass a rise of them that may be
# chance, 11 also above none; 12 holds shares against SFT's too, and decides at equal length.
# Verdicts once given stand: people have decided on them. Every view says so where one of before 4
# made the champion.
KEEPS = ("2", "3", "4", "5", "6", "7", "8", "9", "10", "11")
READS = ("promote",)


def run(ctx: StageContext) -> None:
    """Compare with the champion, which a person or the last verdict named; at first it is SFT."""
    earlier = ctx.inputs_of("earlier")
    last = max(earlier, key=version_order, default=None)
    champion = ctx.champion(None if last is None else earlier[last])
    evaluation = ctx.inputs["evaluate"]
    winrates = read_json(evaluation / "winrates.json")
    standings = {row["side"]: row["figures"] for row in read_json(evaluation / "standings.json")}
    decision = apply_gate(
        ctx.version,
        champion,
        winrates["rows"],
        standings,
        winrates["judges"],
        ctx.config.promote,
        winrates.get("judge_accuracy"),
    )
    atomic_write_json(ctx.out / "decision.json", decision.to_dict())
    ctx.progress.say(decision.verdict)
    ctx.metric(
        promoted=float(decision.promoted),
        checks_failed=float(sum(not check.ok for check in decision.checks)),
    )
