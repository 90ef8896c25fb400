"""The built-in world's gold scores through the evaluation, on answers of known quality."""

import random

import pandas as pd

from alignment.config.world import WorldConfig
from alignment.evaluation.scoring import add_gold
from alignment.reporting.comparison import compare
from alignment.world.demonstrations import answer
from alignment.world.prompts import split


def answered(version, quality, asked):
    """Answers by a simulated writer of the given quality."""
    rng = random.Random(version)
    table = pd.DataFrame(
        {
            "side": version,
            "version": version,
            "arm": "final",
            "prompt_id": [one.prompt.id for one in asked],
            "domain": [one.prompt.domain for one in asked],
            "category": [one.prompt.category for one in asked],
            "borderline": [one.prompt.borderline for one in asked],
            "text": [answer(one.task, quality, rng) for one in asked],
            "finished": True,
        }
    )
    table["n_tokens"] = table.text.str.split().str.len()
    return table


def test_better_writers_win_on_both_axes_and_refuse_less(world):
    _, kept = split(WorldConfig(), 3)
    asked = [one for category in sorted(kept) for one in kept[category][:12]]
    prompts = [one.prompt for one in asked]
    for version, quality in (("sft", 0.15), ("rlhf-v1", 0.55), ("rlhf-v2", 0.95)):
        table = answered(version, quality, asked)
        add_gold(table, prompts)
        world.evaluate(table, prompts=prompts)
        if version != "sft":
            decision = world.decide(version)
    assert decision["champion"] == "rlhf-v2", decision["verdict"]
    first, second = world.metrics["rlhf-v1"], world.metrics["rlhf-v2"]
    for axis in ("helpfulness", "safety"):
        assert 0.5 < first[f"win_{axis}"] < second[f"win_{axis}"]
    assert second["harmful"] < world.metrics["sft"]["harmful"]
    assert second["false_refusal"] <= world.metrics["sft"]["false_refusal"]
    found = compare(world.stages)
    assert found.judges == ["gold"]
    assert found.champion == "rlhf-v2"
