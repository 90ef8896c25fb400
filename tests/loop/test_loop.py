"""The whole loop on a very small world: every stage for real, through the command line."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from warm_align import start

from tests.loop.conftest import align, write_program

STAGES = {
    "base": ["prepare", "pretrain"],
    "sft": ["finetune", "evaluate", "collect"],
    "rlhf-v1": [
        "intake",
        "reward_helpfulness",
        "reward_safety",
        "sample",
        "select",
        "finetune",
        "evaluate",
        "promote",
        "collect",
    ],
}


def status(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        align("status", "--json", "-w", "workspace", cwd=folder).stdout
    )
    return found


def outputs(found: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {
        f"{version['name']}/{stage['stage']}": stage["outputs"]
        for version in found["versions"]
        for stage in version["stages"]
    }


def test_every_stage_is_done_once_with_its_outputs(finished: Path) -> None:
    found = status(finished)
    assert found["program"] == "small"
    names = {v["name"]: [s["stage"] for s in v["stages"]] for v in found["versions"]}
    stages = STAGES["rlhf-v1"].copy()
    stages.insert(stages.index("evaluate"), "ppo")
    assert names == {**STAGES, "rlhf-v2": stages}
    for version in found["versions"]:
        for stage in version["stages"]:
            assert (stage["state"], stage["attempts"]) == ("done", 1), (version["name"], stage)
            assert stage["fingerprint"]
            assert stage["seconds"] > 0
            assert all(len(digest) == 64 for digest in stage["outputs"].values())
    assert {"win_helpfulness", "win_safety", "kl_sft"} <= set(found["versions"][-1]["metrics"])


def test_running_again_does_nothing_and_says_so(finished: Path) -> None:
    before = outputs(status(finished))
    said = align("run", "small.yaml", cwd=finished).stdout
    assert "nothing to do" in said
    assert outputs(status(finished)) == before


def test_compare_shows_the_last_version_with_and_without_ppo(finished: Path) -> None:
    found = json.loads(align("compare", "--json", "-w", "workspace", cwd=finished).stdout)
    text = json.dumps(found)
    assert "rlhf-v2/no_ppo" in text
    shown = align("compare", "-w", "workspace", cwd=finished).stdout
    assert "rlhf-v1" in shown
    assert "no PPO" in shown


def test_export_loads_in_plain_transformers(finished: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    align("export", "rlhf-v2", str(tmp_path / "model"), "-w", "workspace", cwd=finished)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What does the fox eat?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    assert model.generate(**ids, max_new_tokens=4).shape[1] > ids["input_ids"].shape[1]


def test_report_and_batches(finished: Path) -> None:
    page = finished / "workspace" / "report" / "report.html"
    align("report", "-w", "workspace", cwd=finished)
    assert page.read_text(encoding="utf-8").count("data:image/png;base64") >= 2
    listed = json.loads(align("batches", "--json", "-w", "workspace", cwd=finished).stdout)
    assert len(listed) == 2


def test_reward_models_are_shown(finished: Path) -> None:
    shown = align("rewards", "-w", "workspace", cwd=finished).stdout
    assert "Reward models of rlhf-v2" in shown
    assert "growth.png" in shown
    found = json.loads(
        align("rewards", "rlhf-v1", "--json", "-w", "workspace", cwd=finished).stdout
    )
    assert set(found["models"]) == {"reward_helpfulness", "reward_safety"}
    assert (finished / "workspace" / "cache" / "scores").is_dir()


def test_one_stage_alone_and_a_changed_setting(finished: Path) -> None:
    assert "done before" in align("stage", "rlhf-v1/sample", "-w", "workspace", cwd=finished).stdout
    plan = json.loads(
        align("plan", "small.yaml", "--set", "sample.k=4", "--json", cwd=finished).stdout
    )
    asked = (finished / "workspace" / "versions").glob("base/prepare/*/eval_prompts.jsonl")
    lines = [line for path in asked for line in path.read_text(encoding="utf-8").splitlines()]
    domains = [json.loads(line)["domain"] for line in lines]
    smaller = min(domains.count("helpfulness"), domains.count("safety"))
    assert plan["evaluation"]["prompts"] == smaller > 0
    assert plan["evaluation"]["known"]
    states = {f"{row['version']}/{row['stage']}": row["state"] for row in plan["stages"]}
    assert states["rlhf-v1/reward_safety"] == "done"
    assert states["rlhf-v1/sample"] == "stale"
    assert states["rlhf-v1/select"] == "stale"


KILLED = ["sft/finetune", "rlhf-v1/reward_helpfulness", "rlhf-v1/sample", "rlhf-v2/ppo"]


def test_killed_in_four_stages_it_ends_with_the_same_bits(finished: Path, tmp_path: Path) -> None:
    """kill -9 while a stage is running; `align resume` repeats nothing and ends the same."""
    write_program(tmp_path)
    words = ["run", "small.yaml", "--no-prefect", "--set", "tracking.enabled=false"]
    for key in KILLED:
        _kill_during(words, tmp_path, key)
        words = ["resume", "-w", "workspace", "--no-prefect"]
    align(*words, cwd=tmp_path)
    found, calm = status(tmp_path), status(finished)
    assert outputs(found) == outputs(calm)
    attempts = {
        f"{version['name']}/{stage['stage']}": stage["attempts"]
        for version in found["versions"]
        for stage in version["stages"]
    }
    assert {key for key, count in attempts.items() if count > 1} <= set(KILLED)


def _kill_during(words: list[str], folder: Path, key: str) -> None:
    output = folder / "stdout", folder / "stderr"
    process = start(words, folder, output)
    home = folder / "workspace" / "versions" / key
    deadline = time.monotonic() + 300
    while not list(home.glob(".*.partial/scratch/*")) and not list(home.glob("*/manifest.json")):
        assert process.exitcode is None, output[1].read_text()
        assert time.monotonic() < deadline, f"{key} never began"
        time.sleep(0.02)
    process.kill()
    process.join()


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (["run", "small.yaml", "--set", "sampel.k=3"], "did you mean sample", 2),
        (["run", "small.yml"], "did you mean small.yaml", 2),
        (["stage", "rlhf-v1/sampel", "-w", "workspace"], "rlhf-v1/sample", 1),
        (["export", "rlhf-v9", "x", "-w", "workspace"], "no version 'rlhf-v9'", 1),
        (["status", "-w", "nowhere"], "nowhere is not a workspace", 1),
        (["run", "small.yaml", "--set", "workspace=small.yaml/x"], "cannot write", 1),
        (["ingest", "small.yaml", "-w", "workspace"], "small.yaml", 3),
        (["ingest", "gone.jsonl", "-w", "workspace"], "gone.jsonl", 3),
    ],
)
def test_mistakes_are_told_and_harm_nothing(
    finished: Path, words: list[str], message: str, code: int
) -> None:
    before = outputs(status(finished))
    process = align(*words, cwd=finished, check=False)
    told = " ".join(process.stderr.split())
    assert process.returncode == code, told
    assert message in told
    assert "Traceback" not in told
    assert outputs(status(finished)) == before


def test_a_second_run_is_told_who_holds_the_workspace(finished: Path) -> None:
    from alignment.utils.locks import workspace_lock

    with workspace_lock(finished / "workspace"):
        process = align(
            "run", "small.yaml", "--set", "sample.k=2", cwd=finished, check=False, timeout=60
        )
    assert process.returncode == 4
    assert f"pid {os.getpid()}" in process.stderr
