"""sample, select and collect as stages: outputs, repeatability, kill and resume."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import LlamaForSequenceClassification

from alignment.config.compute import ComputeConfig
from alignment.errors import ConfigError, StageError
from alignment.inference.types import Sample
from alignment.models.checkpoint_files import stored_parameters
from alignment.rewards.threshold import write_labelled
from alignment.sampling.reward_scoring import scoring_bytes
from alignment.sampling.shards import Shards, from_table, to_table
from alignment.stages import collect, sample, select
from alignment.utils.files import read_json, sha256_file

SMALL = {
    "prompts": 10,
    "k": 4,
    "generation": {"max_new_tokens": 12},
    "shard_prompts": 3,
    "search_prompts": 4,
}


def test_what_reward_models_take_beside_an_engine(
    stage_inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = [stage_inputs[f"reward_{domain}"] for domain in ("helpfulness", "safety")]
    parameters = stored_parameters(stages[0] / "model")
    assert (
        parameters
        == LlamaForSequenceClassification.from_pretrained(stages[0] / "model").num_parameters()
    )
    assert scoring_bytes(stages, ComputeConfig(device="cpu")) == 0
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for dtype, width in (("float32", 4), ("bfloat16", 2)):
        compute = ComputeConfig(device="cuda", dtype=dtype)
        assert scoring_bytes(stages, compute) == 2 * width * parameters + 2**30
    monkeypatch.setattr("alignment.sampling.reward_scoring.weight_bytes", lambda *_: 10 * 2**30)
    assert scoring_bytes(stages, compute) == 25 * 2**30


def _digests(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): sha256_file(path) for path in files}


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_sample_then_select(make_context: Callable[..., Any]) -> None:
    ctx = make_context("sample", sample={**SMALL, "grid": (0.7, 1.3)})
    sample.run(ctx)
    table = pq.read_table(ctx.out / "samples.parquet").to_pylist()
    assert len(table) == 40
    assert {row["version"] for row in table} == {"sft"}
    assert [row["k"] for row in table[:5]] == [0, 1, 2, 3, 0]
    found = read_json(ctx.out / "temperature.json")
    assert found["temperature"] in (0.7, 1.3)
    assert len(found["search"]) == 2
    assert ctx.metrics["samples"] == 40
    # The better of the two for a selection that takes unfinished answers, as this one does.
    taking = make_context(
        "sample",
        where="taking",
        sample={**SMALL, "grid": (0.7, 1.3)},
        options={"finished_only": False},
    )
    sample.run(taking)
    tried = read_json(taking.out / "temperature.json")
    for mine, other in zip(tried["search"], found["search"], strict=True):
        assert (mine["mean"], mine["finished"]) == (other["mean"], other["finished"])
        assert mine["finished"] < 1
        assert mine["expected"] > other["expected"]
    assert tried["temperature"] == max(tried["search"], key=lambda x: x["expected"])["temperature"]

    relaxed = {"finished_only": False, "safety_threshold": None, "random_control": True}
    chosen = make_context("select", select=relaxed, inputs={"sample": ctx.out})
    select.run(chosen)
    selected = _rows(chosen.out / "selected.jsonl")
    scores = pq.read_table(chosen.out / "scores.parquet").to_pylist()
    assert len(selected) == 10
    assert len(_rows(chosen.out / "control.jsonl")) == 10
    for row in selected:
        mine = [one for one in scores if one["prompt_id"] == row["prompt_id"] and one["text"]]
        ended = [one for one in mine if one["finished"]]  # cut ones are worth no more than these
        best = max(one["reward"] for one in ended or mine)
        assert row["reward"] == pytest.approx(best, rel=1e-6)
        assert row["messages"][-1]["role"] == "user"
    assert sum(row["chosen"] for row in scores) == 10
    assert chosen.metrics["gain"] > 0
    taken = [row["reward"] for row in selected]  # none of the filters took a prompt's best
    assert chosen.metrics["best_of_k"] == pytest.approx(sum(taken) / len(taken), rel=1e-6)
    assert chosen.metrics["share/sft"] == 1.0
    assert chosen.metrics["kl_upper_bound"] == pytest.approx(0.636, abs=1e-3)
    assert (chosen.out / "best_of_n.png").is_file()
    assert (chosen.out / "temperature.png").is_file()
    assert "best of 4" in (chosen.out / "examples.md").read_text(encoding="utf-8")

    blind = make_context(
        "select",
        where="blind",
        select={**relaxed, "train_on": "random"},
        inputs={"sample": ctx.out},
    )
    select.run(blind)
    picked = _rows(blind.out / "selected.jsonl")
    assert picked == _rows(chosen.out / "control.jsonl")
    assert {row["prompt_id"] for row in picked} == {row["prompt_id"] for row in selected}
    assert blind.metrics["control_reward"] < chosen.metrics["best_of_k"]
    assert [one["name"] for one in blind.datasets] == ["random pick of K"]

    again = make_context("select", where="again", select=relaxed, inputs={"sample": ctx.out})
    select.run(again)
    assert _digests(again.out) == _digests(chosen.out)


def _with_card(stage: Path, into: Path, **values: Any) -> Path:
    """A copy of a reward stage with other values in its card."""
    shutil.copytree(stage, into)
    card = into / "model" / "reward.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | values))
    return into


def test_a_lost_domain_is_refused_and_an_unknown_p_safe_loses_none(
    make_context: Callable[..., Any], stage_inputs: dict[str, Path], tmp_path: Path
) -> None:
    ctx = make_context("sample", sample={**SMALL, "temperature": 1.0})
    sample.run(ctx)
    harsh = {"finished_only": False, "safety_threshold": 0.999}
    safety = stage_inputs["reward_safety"]
    known = _with_card(safety, tmp_path / "known", labelled=900, separation=[0.9, 0.8, 1.0])
    given = {"sample": ctx.out, "reward_safety": known}
    with pytest.raises(StageError, match=r"no sample of the \d safety prompts is fit"):
        select.run(make_context("select", where="known", select=harsh, inputs=given))
    unknown = _with_card(safety, tmp_path / "unknown", labelled=0)
    given = {"sample": ctx.out, "reward_safety": unknown}
    blind = make_context("select", where="unknown", select=harsh, inputs=given)
    select.run(blind)
    assert len(_rows(blind.out / "selected.jsonl")) == 10
    assert blind.metrics["safe_probability_known"] == 0.0
    assert "below_safety_threshold" not in blind.metrics or math.isnan(
        blind.metrics["below_safety_threshold"]
    )


def test_a_fitted_threshold_is_told_by_answers_it_was_not_fitted_to(
    make_context: Callable[..., Any], stage_inputs: dict[str, Path], tmp_path: Path
) -> None:
    ctx = make_context("sample", sample={**SMALL, "temperature": 1.0})
    sample.run(ctx)
    safety = stage_inputs["reward_safety"]
    known = _with_card(safety, tmp_path / "known", labelled=900, separation=[0.9, 0.8, 1.0])
    chance = np.arange(1, 101) / 101
    write_labelled(known, (chance < 0.4) ^ (chance < 0.01), chance, np.arange(100))
    fitted = {"method": "piecewise", "threshold_for": {"precision": 0.9}}
    relaxed = {"finished_only": False, "safety_threshold": None}
    ctx = make_context(
        "select", select=relaxed, combine=fitted, inputs={"sample": ctx.out, "reward_safety": known}
    )
    lines: list[str] = []
    ctx.progress.say = lines.append
    select.run(ctx)
    assert any("that it was not fitted to it has precision" in line for line in lines)
    assert 0.39 < ctx.metrics["threshold"] < 0.42
    assert ctx.metrics["threshold_precision_low"] < ctx.metrics["threshold_precision"] < 1
    # Of a model whose P(safe) means nothing no threshold is used, so none has to be found.
    few = _with_card(safety, tmp_path / "few", labelled=3)
    write_labelled(few, np.array([True]), np.array([0.5]), np.array([0]))
    given = {"sample": ctx.inputs["sample"], "reward_safety": few}
    ctx = make_context("select", where="few", select=relaxed, combine=fitted, inputs=given)
    ctx.progress.say = lines.append
    select.run(ctx)
    assert any("thresholds on P(safe) are off" in line for line in lines)
    assert "threshold" not in ctx.metrics


def test_skipped_categories_are_not_sampled_for(
    make_context: Callable[..., Any], stage_inputs: dict[str, Path]
) -> None:
    settings = {**SMALL, "temperature": 1.0, "skip_categories": ("c1",)}
    ctx = make_context("sample", sample=settings)
    sample.run(ctx)
    assert {row["category"] for row in _rows(ctx.out / "prompts.jsonl")} == {"c0"}
    assert ctx.metrics["prompts"] == 10
    for names, said in ((("c1", "rhyme"), "rhyme"), (("c0", "c1"), "no prompt")):
        wrong = make_context("sample", where=said, sample={**settings, "skip_categories": names})
        with pytest.raises(ConfigError, match=said):
            sample.run(wrong)


def test_each_version_draws_its_own_prompts_and_seeds(make_context: Callable[..., Any]) -> None:
    settings = {**SMALL, "temperature": 1.0}
    first = make_context("sample", where="a", sample=settings)
    second = make_context("sample", where="b", sample=settings, version="rlhf-v2", seed=12)
    for ctx in (first, second):
        sample.run(ctx)
    texts = [pq.read_table(ctx.out / "samples.parquet").to_pylist() for ctx in (first, second)]
    assert {row["version"] for row in texts[1]} == {"rlhf-v1"}
    assert {row["prompt_id"] for row in texts[0]} != {row["prompt_id"] for row in texts[1]}


def test_a_version_samples_for_fresh_prompts_first_and_counts_repeats(
    make_context: Callable[..., Any], stage_inputs: dict[str, Path]
) -> None:
    pool = {row["id"] for row in _rows(stage_inputs["prepare"] / "prompts.jsonl")}
    settings = {**SMALL, "prompts": len(pool) // 2 - 1, "k": 1, "temperature": 1.0}
    drawn: dict[str, set[str]] = {}
    inputs: dict[str, Path] = {}
    for number in (1, 2, 3):
        version = f"rlhf-v{number}"
        ctx = make_context(
            "sample", version, sample=settings, version=version, seed=number, inputs=inputs
        )
        lines: list[str] = []
        ctx.progress.say = lines.append
        sample.run(ctx)
        drawn[version] = {row["id"] for row in _rows(ctx.out / "prompts.jsonl")}
        inputs = {**inputs, f"earlier/{version}": ctx.out}
        if number == 2:
            assert ctx.metrics["repeated_prompts"] == 0
            assert not drawn["rlhf-v1"] & drawn["rlhf-v2"]
    fresh = pool - drawn["rlhf-v1"] - drawn["rlhf-v2"]
    assert fresh <= drawn["rlhf-v3"]
    assert ctx.metrics["repeated_prompts"] == len(drawn["rlhf-v3"] - fresh) > 0
    assert any("earlier versions have sampled for" in line for line in lines)


def test_the_bag_of_all_versions(make_context: Callable[..., Any]) -> None:
    settings = {**SMALL, "temperature": 1.2, "prompts": 24}
    relaxed = {"finished_only": False, "safety_threshold": None, "bag_keep": 2, "bag_share": 0.99}
    drawn = {}
    for number in (1, 2):
        version = f"rlhf-v{number}"
        drawn[version] = make_context(
            "sample", where=version, sample=settings, version=version, seed=number
        )
        sample.run(drawn[version])
    old = make_context(
        "select", where="s1", select=relaxed, inputs={"sample": drawn["rlhf-v1"].out}
    )
    select.run(old)
    new = make_context(
        "select",
        where="s2",
        version="rlhf-v2",
        select=relaxed,
        options={"bag": "all"},
        inputs={"sample": drawn["rlhf-v2"].out, "earlier/rlhf-v1": old.out},
    )
    select.run(new)
    selected = _rows(new.out / "selected.jsonl")
    sources = {row["source_version"] for row in selected}
    assert sources == {"sft", "rlhf-v1"}
    assert new.metrics["share/sft"] + new.metrics["share/rlhf-v1"] == pytest.approx(1.0)
    assert {row["source_version"] for row in _rows(new.out / "kept.jsonl")} == {"rlhf-v1"}
    # More to choose from: as good or better, but for cut answers, which one that ended outranks.
    alone = {row["prompt_id"]: row for row in _rows(old.out / "selected.jsonl")}
    pairs = [(row, alone[row["prompt_id"]]) for row in selected]
    as_before = [(new, old) for new, old in pairs if new["finished"] == old["finished"]]
    assert as_before
    assert all(new["reward"] >= old["reward"] - 1e-6 for new, old in as_before)


def test_nothing_fit_for_fine_tuning_is_an_error(make_context: Callable[..., Any]) -> None:
    ctx = make_context(
        "sample", sample={**SMALL, "temperature": 1.0, "generation": {"max_new_tokens": 1}}
    )
    sample.run(ctx)
    chosen = make_context("select", inputs={"sample": ctx.out})
    with pytest.raises(StageError, match="fit for fine-tuning") as raised:
        select.run(chosen)
    assert "max_new_tokens" in str(raised.value)


def test_collect(make_context: Callable[..., Any], stage_inputs: dict[str, Path]) -> None:
    settings = {"pairs": 12, "generation": {"max_new_tokens": 10}, "temperatures": (0.8, 1.2)}
    alone = make_context("collect", where="sft", version="sft", collect=settings)
    collect.run(alone)
    for row in _rows(alone.out / "pairs.jsonl"):
        assert {one["version"] for one in row["responses"]} == {"sft"}
        assert {one["temperature"] for one in row["responses"]} == {0.8, 1.2}
        assert row["responses"][0]["text"] != row["responses"][1]["text"]
        assert row["domain"] in ("helpfulness", "safety")
    both = make_context(
        "collect",
        where="v1",
        collect=settings,
        inputs={"earlier": stage_inputs["policy"]},
        options={"earlier_version": "sft"},
    )
    collect.run(both)
    rows = _rows(both.out / "pairs.jsonl")
    assert len(rows) + both.metrics["dropped_as_same"] == 12
    assert all({one["version"] for one in r["responses"]} == {"rlhf-v1", "sft"} for r in rows)
    assert len({row["id"] for row in rows}) == len(rows)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Bits are promised for one number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _written(ctx: Any) -> dict[str, int]:
    shards = sorted((ctx.scratch / "shards").glob("shard-*"))
    return {path.name: path.stat().st_mtime_ns for path in shards}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("shard", "shards"), [(1024, 3), (3, 9)])
def test_collect_interrupted_and_resumed_gives_the_same_bytes(
    make_context: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, shard: int, shards: int
) -> None:
    """12 pairs have 24 sides, 8 at each of three temperatures."""
    monkeypatch.setattr(collect, "SHARD", shard)
    settings = {"pairs": 12, "generation": {"max_new_tokens": 10}}
    whole = make_context("collect", where="whole", collect=settings)
    collect.run(whole)
    broken = make_context("collect", where="broken", collect=settings)
    real = Shards.write

    def dies(self: Shards, number: int, table: Any) -> None:
        if number == 2:
            raise KeyboardInterrupt
        real(self, number, table)

    with monkeypatch.context() as patch:
        patch.setattr(Shards, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            collect.run(broken)
    done = _written(broken)
    assert len(done) == 2
    collect.run(broken)
    assert {name: _written(broken)[name] for name in done} == done
    assert len(_written(broken)) == shards
    assert _digests(broken.out) == _digests(whole.out)


def test_shards_of_another_request_are_thrown_away(tmp_path: Path) -> None:
    table = to_table(["p"], [[Sample([1, 2], [-0.5, -0.25], True, "x")]], 1.0, "sft")
    Shards(tmp_path / "s", {"seed": 1}).write(0, table)
    same = Shards(tmp_path / "s", {"seed": 1})
    assert from_table(same.read(0)) == [[Sample([1, 2], [-0.5, -0.25], True, "x")]]
    assert not Shards(tmp_path / "s", {"seed": 2}).has(0)
