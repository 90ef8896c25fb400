"""What a person sees first: the champion, the batches, the headline figures, the price."""

from __future__ import annotations

import json
from typing import Any

import pytest

from alignment.pipeline.approval import decide
from alignment.reporting.cost import stage_cost, together
from alignment.reporting.headline import HEADLINES
from alignment.tracking.history import read_history
from alignment.tracking.links import find_links
from alignment.tracking.sync import Sync


def test_names_tags_and_notes_say_who_is_champion(stages: Any, program: Any, run_all: Any) -> None:
    run_all(program)
    sync = Sync(program)
    assert sync.step(alive=False) == []
    runs = sync.runs.versions
    assert {name: run.info.run_name for name, run in runs.items()} == {
        "base": "BASE",
        "sft": "SFT",
        "rlhf-v1": "RLHF-V1 ★",
        "rlhf-v2": "RLHF-V2",
    }
    tags = {name: run.data.tags for name, run in runs.items()}
    assert tags["rlhf-v1"]["rlhf.standing"] == "champion"
    assert tags["rlhf-v2"]["rlhf.standing"] == "challenger"
    assert tags["sft"]["rlhf.standing"] == "former champion"
    assert tags["rlhf-v2"]["rlhf.batches"] == "batch2"
    assert tags["rlhf-v2"]["rlhf.parent"] == "rlhf-v1"
    note = tags["rlhf-v2"]["mlflow.note.content"]
    assert note.startswith("**Not promoted.** rlhf-v2 is not promoted.")
    assert "Made from 2 batches, 14 comparisons (batch1, batch2)" in note
    top = sync.client.get_experiment(sync.store.experiment).tags["mlflow.note.content"]
    assert top.startswith("**Champion: rlhf-v1. rlhf-v1 is promoted.**")
    assert "Made from: 1 batch, 7 comparisons (batch1)." in top


def test_a_persons_word_moves_the_star(stages: Any, program: Any, run_all: Any, dump: Any) -> None:
    run_all(program)
    Sync(program).step(alive=False)
    decide(program.workspace, "rlhf-v2", approved=True, reason="read it", by="ana")
    again = Sync(program)
    assert again.step(alive=False) == []
    names = sorted(run.info.run_name for run in again.runs.versions.values())
    assert names == ["BASE", "RLHF-V1", "RLHF-V2 ★", "SFT"]
    tags = again.runs.versions["rlhf-v1"].data.tags
    assert tags["rlhf.standing"] == "former champion"
    note = again.runs.versions["rlhf-v2"].data.tags["mlflow.note.content"]
    assert "Approved by ana on " in note
    assert ": read it." in note
    registry = dump(again.store)["registry"]["fake-policy"]
    assert [registry[number][1] for number in sorted(registry)] == [[], [], ["champion"]]


def test_models_stand_on_the_versions_page(stages: Any, program: Any, run_all: Any) -> None:
    run_all(program)
    sync = Sync(program)
    sync.step(alive=False)
    for name, kinds in (("sft", ["policy"]), ("rlhf-v2", ["policy", "reward-helpfulness",
                                                         "reward-safety"])):  # fmt: skip
        run = sync.runs.versions[name].info.run_id
        found = sync.client.search_model_versions(f"run_id = '{run}'")
        assert sorted(model.name for model in found) == [f"fake-{kind}" for kind in kinds]


def test_price_is_that_of_the_ledger(stages: Any, program: Any, run_all: Any, dump: Any) -> None:
    run_all(program)
    sync = Sync(program)
    sync.step(alive=False)
    runs = dump(sync.store)
    for history in read_history(program):
        costs = []
        for stage, manifest in history.current.items():
            cost = stage_cost(
                manifest.seconds, manifest.peak_memory_mb, manifest.metrics, program.cost
            )
            costs.append(cost)
            curves = runs[f"{history.version}/{stage}#1"]["curves"]
            for name, value in cost.figures().items():
                assert curves[f"price/{name}"] == [(0, value)], (stage, name)
        curves = runs[history.version.upper()]["curves"]
        for name, value in together(costs).figures().items():
            assert curves[f"price/{name}"] == [(0, value)], name
    assert runs["RLHF-V2"]["curves"]["price/tokens_generated"] == [(0, 2 * 2007)]
    assert runs["RLHF-V2"]["curves"]["price/tokens_trained"] == [(0, 1000)]


def test_energy_and_carbon_by_hand() -> None:
    from alignment.config.tracking import CostConfig

    # Llama 2, Table 2: 184,320 hours of an A100 at 400 W made 31.22 t of CO₂.
    config = CostConfig(device_watts=400)
    cost = stage_cost(184_320 * 3600, 1.0, {"tokens_trained": None}, config)
    assert cost.energy_wh == 184_320 * 400
    assert cost.co2_g == pytest.approx(31.22e6, rel=2e-3)
    both = together([cost, stage_cost(36, 5.0, {"tokens_trained": 7.0}, config)])
    assert (both.peak_memory_mb, both.tokens_trained) == (5.0, 7.0)
    assert both.energy_wh == pytest.approx(184_320 * 400 + 4)
    cooled = stage_cost(3600, 1.0, {}, CostConfig(device_watts=100, overhead=1.1))
    assert cooled.energy_wh == pytest.approx(110)


def test_views_name_metrics_that_exist(stages: Any, program: Any, run_all: Any, dump: Any) -> None:
    early = find_links(program)
    assert early.compare is None  # no page of nothing
    assert early.progress is None
    run_all(program)
    sync = Sync(program)
    sync.step(alive=False)
    links = find_links(program)
    tags = sync.client.get_experiment(sync.store.experiment).tags
    table = json.loads(tags["mlflow.sharedViewState.rlhfversions"])
    charts = json.loads(tags["mlflow.sharedViewState.rlhfcharts"])
    known = set(dump(sync.store)["RLHF-V2"]["curves"])
    wanted = {name.split("`")[1] for name in table["selectedColumns"] if name.startswith("metrics")}
    wanted |= {chart["metricKey"] for chart in charts["compareRunCharts"] if "metricKey" in chart}
    assert wanted <= known
    assert {f"main/{headline.name}" for headline in HEADLINES} <= known
    charted = {chart.get("metricKey") for chart in charts["compareRunCharts"]}
    for headline in HEADLINES:
        assert (f"main/{headline.name}" in charted) is headline.compares
    assert [item.name for item in HEADLINES if not item.compares] == [
        "own_test_accuracy_helpfulness",
        "own_test_accuracy_safety",
    ]
    assert all("workflowType=machine_learning" in link for link in vars(links).values() if link)
    assert all(vars(links).values())
