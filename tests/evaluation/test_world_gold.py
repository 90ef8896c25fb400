"""The built-in world's gold scores through the evaluation, on answers of known quality."""

from evaluation_fixtures import answered

from alignment.config.world import WorldConfig
from alignment.evaluation.scoring import add_gold
from alignment.evaluation.standings import refusal_figures, score_figures
from alignment.reporting.comparison import compare
from alignment.world.prompts import split


def test_better_writers_win_on_both_axes_and_refuse_less(world):
    kept = split(WorldConfig(), 3).evaluation
    asked = [one for category in sorted(kept) for one in kept[category]]
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


def test_intervals_are_over_subjects():
    kept = split(WorldConfig(), 3).evaluation
    asked = kept["craft"][:32]
    table = answered("sft", 0.5, asked)
    add_gold(table, [one.prompt for one in asked])
    assert sorted(table.subject.value_counts()) == [8, 8, 8, 8]
    settings = {"seed": 1, "samples": 500}
    bound = "score/gold/helpfulness_low"
    alone = score_figures(table.drop(columns="subject"), **settings)
    assert score_figures(table, **settings)[bound] != alone[bound]
    figures = refusal_figures(table.assign(refused=table.subject == table.subject[0]))
    whole = refusal_figures(table.assign(refused=[n < 8 for n in range(32)], subject=range(32)))
    assert figures["refusal_helpful"] == whole["refusal_helpful"] == 0.25
    # One of four crafts is refused, not eight of 32 prompts.
    assert figures["refusal_helpful_high"] > whole["refusal_helpful_high"] + 0.1
