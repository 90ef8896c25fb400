"""Evaluation, promotion and comparison of planted versions, through the stage code."""

import json
from itertools import product

import numpy as np
import pytest

from alignment.errors import AlignError, DataError
from alignment.evaluation.judging import all_win_rates, find_rate, turned
from alignment.evaluation.position_bias import bias_figures
from alignment.evaluation.responses import read_table, side_order, side_title
from alignment.reporting.comparison import Comparison, compare
from alignment.reporting.headline import HEADLINES, headline
from alignment.reporting.sections_versions import forgetting
from alignment.reporting.version_table import notes
from alignment.utils.files import atomic_write_json


@pytest.fixture
def series(world, planted):
    """SFT, a good V1, a V2 with and without PPO."""
    world.evaluate(planted("sft"))
    world.reward("rlhf-v1", 0.7)
    world.evaluate(planted("rlhf-v1", gold=0.9), kl=2.0)
    world.decide("rlhf-v1")
    world.reward("rlhf-v2", 0.75)
    world.evaluate(planted("rlhf-v2", "no_ppo", gold=1.5), planted("rlhf-v2", gold=2.2), kl=5.0)
    world.decide("rlhf-v2")
    return world


def test_metrics_of_a_version(series):
    metrics = series.metrics["rlhf-v2"]
    assert metrics["win_helpfulness"] == metrics["win/gold/helpfulness"] > 0.85
    assert metrics["win_helpfulness_low"] < metrics["win_helpfulness"]
    assert metrics["win_rate/gold/safety_vs_sft"] == metrics["win_safety"]
    assert metrics["win_rate/rm/safety_vs_rlhf-v1"] > 0.6
    assert metrics["win_rate/gold/safety_vs_rlhf-v2_no_ppo"] > 0.5
    assert metrics["no_ppo/win_helpfulness"] < metrics["win_helpfulness"]
    assert metrics["kl_sft"] == 5.0
    assert metrics["forgotten_categories"] == 0
    assert "category/helpfulness/look-alike" in metrics
    assert series.metrics["sft"]["win_helpfulness"] == 0.5


def test_gold_rate_is_what_counting_gives(series):
    sft = read_table(series.stages["sft"]["evaluate"] / "responses.parquet")
    v1 = read_table(series.stages["rlhf-v1"]["evaluate"] / "responses.parquet")
    wins = []
    for prompt in sft.prompt_id[sft.domain == "safety"]:
        a = v1.gold_safety[v1.prompt_id == prompt].item()
        b = sft.gold_safety[sft.prompt_id == prompt].item()
        wins.append(1.0 if a > b else 0.0 if a < b else 0.5)
    assert series.metrics["rlhf-v1"]["win_safety"] == pytest.approx(np.mean(wins))


def test_gold_figures_of_a_version_never_change_later(series):
    newest = {e.side: e for e in compare(series.stages).entries}["rlhf-v1"].figures
    own = series.metrics["rlhf-v1"]
    names = ["win_helpfulness_low", "win_safety_high", "refusal_harmful", "distinct_2", "kl_sft"]
    for name in names:
        assert newest[name] == pytest.approx(own[name], rel=1e-5), name


def test_comparison_shows_what_status_shows(series):
    found = compare(series.stages)
    assert [entry.side for entry in found.entries] == [
        "sft",
        "rlhf-v1",
        "rlhf-v2/no_ppo",
        "rlhf-v2",
    ]
    assert found.champion == "rlhf-v2"
    data = found.to_dict()
    json.dumps(data, allow_nan=False)
    last = data["versions"][-1]
    assert last["headline"]["own_test_accuracy_safety"] == 0.75
    written = json.loads((series.stages["rlhf-v2"]["evaluate"] / "metrics.json").read_text())
    assert last["headline"]["win_safety"] == written["win_safety"]


def test_table_is_whole(series):
    from rich.console import Console

    from alignment.reporting.version_table import View

    console = Console(width=200, record=True)
    console.print(View(compare(series.stages)))
    text = console.export_text()
    for word in ("rlhf-v2 ★", "rlhf-v2 (no PPO)", "champion", "75.0", "gold, %"):
        assert word in text, text


def test_table_in_a_narrow_terminal_loses_nothing(series):
    from rich.console import Console

    from alignment.reporting.version_table import View

    console = Console(width=90, record=True)
    console.print(View(compare(series.stages)))
    text = console.export_text()
    assert text.count("rlhf-v2 ★") == 2
    assert "…" not in text.split("Win rates")[0]


def test_comparison_of_some_versions(series):
    some = {name: series.stages[name] for name in ("sft", "rlhf-v1")}
    found = compare(some)
    assert found.newest == "rlhf-v1"
    assert {row["a"] for row in found.winrates} == {"rlhf-v1"}
    with pytest.raises(AlignError, match="no version is evaluated"):
        compare({"sft": {}})


def test_the_champions_batches_do_not_depend_on_what_is_shown(series):
    counts = {"training": {"helpfulness": 50}, "heldout": {"helpfulness": 5}}
    for name in ("rlhf-v1", "rlhf-v2"):
        batch = {"id": f"batch-of-{name}", "digest": "0" * 64, "counts": counts}
        intake = series.root / name / "intake"
        intake.mkdir()
        atomic_write_json(intake / "batch.json", {"version": name, "batches": [batch]})
        series.stages[name]["intake"] = intake
    newest = {"rlhf-v2": series.stages["rlhf-v2"]}
    found = compare(newest, champion="rlhf-v2", every=series.stages)
    assert "Made from: 2 batches, 100 comparisons" in "\n".join(found.summary())


def test_forgetting_is_flagged_where_it_was_planted(world, planted):
    world.evaluate(planted("sft"))
    world.evaluate(planted("rlhf-v1", gold=1.0))
    metrics = world.evaluate(planted("rlhf-v2", gold=1.5, rhyme=-3.0))
    rows = compare(world.stages).forgetting["rlhf-v2"]
    assert [row["category"] for row in rows if row["forgotten"]] == ["rhyme"]
    lost = next(row for row in rows if row["forgotten"])
    assert lost["best"] == "rlhf-v1"
    assert lost["difference"] == pytest.approx(lost["score"] - lost["best_score"], abs=1e-5)
    assert metrics["forgotten_categories"] == 1


def test_a_category_of_one_prompt_has_no_interval_and_does_not_stop_the_report():
    row = {"side": "rlhf-v1", "domain": "safety", "category": "x", "score": 0.1, "best_score": 0.5}
    row |= {
        "best": "sft",
        "difference": -0.4,
        "low": -0.6,
        "high": -0.2,
        "n": 30,
        "forgotten": True,
    }
    alone = {**row, "category": "y", "n": 1, "low": None, "high": None, "forgotten": False}
    found = forgetting({}, Comparison("rlhf-v1", [], 0.95, [], [], {}, {"rlhf-v1": [alone, row]}))
    assert found is not None
    assert [shown[2] for shown in found["rows"]] == ["x"]
    assert found["compared"] == 2


def test_other_prompts_are_an_error(world, planted):
    world.evaluate(planted("sft"))
    other = planted("rlhf-v1")
    other["prompt_id"] = "x" + other.prompt_id
    with pytest.raises(DataError, match="different prompts"):
        world.evaluate(other)


def test_every_pair_and_its_mirror(planted):
    sides = {name: planted(name) for name in ("sft", "rlhf-v1", "rlhf-v2")}
    for table in sides.values():
        table["chars"] = table.text.str.len()
    rows = all_win_rates(sides)
    assert len(rows) == 3 * 2 * 2
    row = find_rate(rows, "sft", "rlhf-v2", "rm", "safety")
    straight = find_rate(rows, "rlhf-v2", "sft", "rm", "safety")
    assert row["win_rate"] + straight["win_rate"] == pytest.approx(1)
    assert row["low"] < row["win_rate"] < row["high"]
    again = turned(row)
    assert {key: pytest.approx(value) if isinstance(value, float) else value
            for key, value in straight.items()} == again  # fmt: skip
    assert find_rate(rows, "sft", "nobody", "rm", "safety") is None


def test_no_reward_model_prefers_a_cut_answer_to_one_that_ended(planted):
    """Gold scores know what a missing end costs; reward models like it."""
    sides = {name: planted(name) for name in ("sft", "rlhf-v1")}
    for table in sides.values():
        table["chars"] = table.text.str.len()
        table["finished"] = True
        table["guard_helpfulness"] = table["guard_safety"] = 0.0
    cut, ended = sides["rlhf-v1"], sides["sft"]
    half = np.arange(len(cut)) % 2 == 0
    cut["finished"] = ~half
    judges = ("gold", "rm", "guard")
    for judge, axis in product(judges, ("helpfulness", "safety")):
        ended[f"{judge}_{axis}"] = 0.0
        cut[f"{judge}_{axis}"] = np.where(half, 9.0, 1.0)
    rates = all_win_rates(sides)
    found = {judge: find_rate(rates, "rlhf-v1", "sft", judge, "safety") for judge in judges}
    # The half that ended wins, the half that was cut is worth no more than what it is beside.
    assert [found[judge]["win_rate"] for judge in judges] == [1.0, 0.75, 0.75]
    # Of two cut answers the better wins.
    cut["rm_safety"], ended["finished"] = np.where(half, -1.0, 1.0), ~half
    rate = find_rate(all_win_rates(sides), "rlhf-v1", "sft", "rm", "safety")
    assert rate["win_rate"] == 0.5


def test_order_and_names():
    sides = ["rlhf-v10", "rlhf-v2", "sft", "rlhf-v10/no_ppo"]
    assert sorted(sides, key=side_order) == ["sft", "rlhf-v2", "rlhf-v10/no_ppo", "rlhf-v10"]
    assert side_title("rlhf-v5/no_ppo") == "rlhf-v5 (no PPO)"


def test_headline_figures():
    figures = headline(
        {
            "evaluate": {"win_safety": 0.7, "win_safety_low": 0.6, "kl_sft": None, "other": 1.0},
            "reward_safety": {"accuracy": 0.8, "accuracy_low": 0.7},
        }
    )
    assert figures == {
        "win_safety": 0.7,
        "win_safety_low": 0.6,
        "own_test_accuracy_safety": 0.8,
        "own_test_accuracy_safety_low": 0.7,
    }
    shown = {h.name: h.show({**figures, "win_safety_high": 0.8}) for h in HEADLINES}
    assert shown["win_safety"] == "70.0 % [60, 80]"
    assert shown["kl_sft"] == "–"


def test_what_the_judge_makes_of_places_stands_below_the_table(series):
    path = series.stages["rlhf-v2"]["evaluate"] / "winrates.json"
    plain = notes(compare(series.stages))
    assert not any("LM judge" in line for line in plain)
    place = np.repeat([1.0, 0.0], [30, 70])
    about = {"pairs": 100.0, "inconsistent": 0.3, **bias_figures(place, np.arange(100))}
    atomic_write_json(path, json.loads(path.read_text()) | {"lm_judge": about})
    found = compare(series.stages)
    shown = [line for line in notes(found) if "LM judge" in line]
    assert len(shown) == 2
    assert shown[1].startswith("Warning: ")
    assert found.to_dict()["lm_judge"]["position_bias"] == pytest.approx(0.3)
