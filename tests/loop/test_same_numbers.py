"""One number has one value: ledger, status, compare, report and MLflow, after a real program."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from alignment.cli.common import load_workspace
from alignment.reporting.cost import stage_cost, together
from alignment.reporting.headline import HEADLINES
from alignment.tracking.history import read_history
from alignment.tracking.store import Store
from tests.loop.conftest import align


def of_command(folder: Path, *words: str) -> Any:
    return json.loads(align(*words, "--json", "-w", "workspace", cwd=folder).stdout)


def test_headline_figures_and_price_everywhere(finished: Path) -> None:
    program = load_workspace(finished / "workspace")
    histories = {history.version: history for history in read_history(program)}
    status = {v["name"]: v for v in of_command(finished, "status")["versions"]}
    compared = of_command(finished, "compare")
    shown = {v["name"]: v for v in compared["versions"]}
    align("report", "-w", "workspace", cwd=finished)
    page = html.unescape((finished / "workspace/report/report.html").read_text(encoding="utf-8"))
    store = Store(program)
    runs = {
        run.data.tags["rlhf.version"]: run
        for run in store.client.search_runs([store.experiment], "tags.`rlhf.kind` = 'version'")
    }
    progress = store.client.search_runs([store.experiment], "tags.`rlhf.kind` = 'progress'")[0]
    assert set(runs) == {name for name in shown if "/" not in name}
    assert set(shown) - set(runs) == {"rlhf-v2/no_ppo", "constant/polite", "constant/refusing"}
    for number, (version, history) in enumerate(
        (name, found) for name, found in histories.items() if name != "base"
    ):
        ledger = history.headline()
        assert ledger, version
        assert status[version]["metrics"] == ledger
        assert shown[version]["headline"] == ledger
        metrics = runs[version].data.metrics
        for name, value in ledger.items():
            group = "range/" if name.endswith(("_low", "_high")) else "main/"
            assert metrics[f"{group}{name}"] == pytest.approx(value, rel=1e-5), (version, name)
            if name.startswith("own_test"):  # no curve over the versions
                continue
            series = store.client.get_metric_history(progress.info.run_id, f"{group}{name}")
            at = {point.step: point.value for point in series}
            assert at[number] == metrics[f"{group}{name}"]
        for domain, rows in compared["reward_accuracy"].items():
            name = f"main/same_test_accuracy_{domain}"
            series = store.client.get_metric_history(progress.info.run_id, name)
            at = {point.step: point.value for point in series}
            assert (number in at) is (version in rows)
            if version in rows:
                assert at[number] == pytest.approx(rows[version]["accuracy"], rel=1e-5)
        note = runs[version].data.tags["mlflow.note.content"]
        for headline in HEADLINES:
            if headline.name in ledger:
                assert f"| {headline.title} | {headline.show(ledger)} |" in note
        costs = {
            stage: stage_cost(m.seconds, m.peak_memory_mb, m.metrics, program.cost)
            for stage, m in history.current.items()
        }
        total = together(costs.values())
        assert compared["costs"][version]["total"] == total.figures()
        assert compared["costs"][version]["stages"] == {s: c.figures() for s, c in costs.items()}
        assert {k: metrics[f"price/{k}"] for k in total.figures()} == total.figures()
        assert "".join(f"<td>{cell}</td>" for cell in [version, *total.cells()]) in page
        assert total.tokens_generated > 0
        assert total.tokens_trained > 0
    # The rates that the newest evaluation gives for all versions are those in table and page.
    table = align("compare", "-w", "workspace", cwd=finished).stdout
    for name, entry in shown.items():
        rate = entry["figures"].get("win/gold/helpfulness")
        if name != "sft" and rate is not None:
            assert re.search(rf"{100 * rate:.1f} \[", table), name
            assert f"{100 * rate:.1f} [" in page, name
    champion = compared["champion"]
    assert f"Champion: {champion}." in page
    assert f"Champion: {champion}." in " ".join(table.split())
    assert [v for v, run in runs.items() if run.info.run_name.endswith("★")] == [champion]


def test_lineage_reaches_batches_reward_models_seeds_and_code(finished: Path) -> None:
    found = of_command(finished, "lineage", "rlhf-v2")
    assert found["of"] == "rlhf-v2/ppo"
    keys = [f"{step['version']}/{step['stage']}" for step in found["steps"]]
    assert keys[-1] == "rlhf-v2/ppo"
    assert {"base/pretrain", "sft/finetune", "rlhf-v1/reward_safety", "rlhf-v2/intake"} <= set(keys)
    for step in found["steps"]:
        for source in step["inputs"].values():
            assert keys.index(source) < keys.index(f"{step['version']}/{step['stage']}")
        assert step["code_version"]
        assert isinstance(step["seed"], int)
    listed = of_command(finished, "batches")
    assert [batch["id"] for batch in found["batches"]] == [batch["id"] for batch in listed]
    assert found["config"]["rlhf-v2/ppo"]["ppo"]["iterations"] == 4
    assert "torch" in found["libraries"]
    assert found["missing"] == []
    digest = found["steps"][-1]["digest"][:12]
    assert of_command(finished, "lineage", digest)["of"] == "rlhf-v2/ppo"


def test_rlhf_v2_is_made_again_to_the_byte(finished: Path, tmp_path: Path) -> None:
    into = tmp_path / "again"
    found = of_command(finished, "reproduce", "rlhf-v2", "--into", str(into))
    assert found["identical"]
    assert found["weights"]["model/model.safetensors"] is True
    keys = [stage["key"] for stage in found["stages"]]
    assert keys[0] == "base/prepare"
    assert keys[-1] == "rlhf-v2/ppo"
    assert all(stage["digest"] == stage["again"] for stage in found["stages"])
    assert not any(stage["taken_over"] for stage in found["stages"])
    first = next((finished / "workspace/versions/rlhf-v2/ppo").glob("*/model/model.safetensors"))
    second = next((into / "versions/rlhf-v2/ppo").glob("*/model/model.safetensors"))
    assert first.read_bytes() == second.read_bytes()
    refused = align(
        "reproduce", "rlhf-v2", "--into", str(into), "-w", "workspace", cwd=finished, check=False
    )
    assert refused.returncode == 1
    assert "is not empty" in refused.stderr


def test_the_champion_is_exported_and_pages_are_written(finished: Path, tmp_path: Path) -> None:
    align("export", "champion", str(tmp_path / "best"), "-w", "workspace", cwd=finished)
    assert (tmp_path / "best" / "config.json").is_file()
    page = tmp_path / "pair.html"
    align("compare", "sft", "rlhf-v2", "--html", str(page), "-w", "workspace", cwd=finished)
    text = page.read_text(encoding="utf-8")
    assert "small: sft, rlhf-v2" in text
    assert "rlhf-v1</td>" not in text.split('id="lineage"')[0]
