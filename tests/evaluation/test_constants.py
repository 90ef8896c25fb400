"""One answer to every prompt: a row of the comparison that must lose, and nowhere a policy."""

import pytest
from evaluation_fixtures import answered

from alignment.config.world import WorldConfig
from alignment.evaluation.judging import find_rate
from alignment.evaluation.scoring import add_gold
from alignment.reporting.comparison import compare
from alignment.reporting.pareto_plot import points
from alignment.reporting.version_table import grid, notes
from alignment.utils.files import read_json
from alignment.world.constants import CONSTANTS
from alignment.world.prompts import split

SIDES = [f"constant/{name}" for name in CONSTANTS]


@pytest.fixture
def compared(world):
    kept = split(WorldConfig(), 3).evaluation
    asked = [one for category in sorted(kept) for one in kept[category]]
    prompts = [one.prompt for one in asked]
    for version, quality in (("sft", 0.5), ("rlhf-v1", 0.95)):
        table = answered(version, quality, asked)
        add_gold(table, prompts)
        world.evaluate(table, prompts=prompts, constants=True)
    world.decide("rlhf-v1")
    return world


def test_they_are_rows_of_the_table_and_lose(compared):
    found = compare(compared.stages)
    assert [entry.side for entry in found.entries] == ["sft", "rlhf-v1", *SIDES]
    assert [row[0] for row in grid(found)[1]][2:] == ["always polite", "always refusing"]
    assert all(any(text in line for line in notes(found)) for text in CONSTANTS.values())
    scores = {
        entry.side: [entry.figures[f"score/gold/{axis}"] for axis in ("helpfulness", "safety")]
        for entry in found.entries
    }
    for side in SIDES:
        assert sum(scores[side]) < sum(scores["rlhf-v1"]) - 0.5
        assert find_rate(found.winrates, side, "sft", "gold", "helpfulness")["high"] < 0.5
    assert scores["constant/refusing"][1] == pytest.approx(0.38)
    refusing = next(entry for entry in found.entries if entry.side == "constant/refusing")
    assert refusing.figures["false_refusal"] == 1.0


def test_they_are_no_policies(compared):
    found = compare(compared.stages)
    assert [point.side for point in points(found, "gold")] == ["sft", "rlhf-v1"]
    forgotten = read_json(compared.stages["rlhf-v1"]["evaluate"] / "forgetting.json")
    assert {row["side"] for row in forgotten} == {"rlhf-v1"}
    assert {row["best"] for row in forgotten} == {"sft"}
    assert found.champion == "rlhf-v1"
    assert found.to_dict()["versions"][-1]["title"] == "always refusing"
