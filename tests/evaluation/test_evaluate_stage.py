"""The whole evaluate stage on a real small model with two reward models made on the spot."""

import math
from types import SimpleNamespace

import pytest
import torch

from alignment.config.compute import ComputeConfig
from alignment.config.evaluate import EvaluateConfig
from alignment.config.generation import GenerationConfig
from alignment.config.inference import InferenceConfig
from alignment.evaluation.responses import read_table, write_table
from alignment.inference.engine import TransformersEngine
from alignment.models.load import load_policy, load_scalar, load_tokenizer, save_model
from alignment.preferences.prompts import Prompt, write_prompts
from alignment.reporting.comparison import compare
from alignment.reporting.pareto_plot import points
from alignment.rewards.card import RewardCard
from alignment.rewards.model import RewardModel
from alignment.stages import evaluate
from alignment.stages.context import StageContext
from alignment.utils.files import atomic_write_json, read_json, sha256_file


@pytest.fixture(scope="module")
def parts(stories, tmp_path_factory):
    """Policies, reward models and prompts."""
    root = tmp_path_factory.mktemp("parts")
    tokenizer = load_tokenizer(stories)
    for name, noise in (("sft", 0.0), ("v1", 0.02), ("v1-no-ppo", 0.01)):
        torch.manual_seed(5)
        model = load_policy(stories)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += noise * parameter.std() * torch.randn_like(parameter)
        save_model(model, tokenizer, root / name / "model")
    for axis in ("helpfulness", "safety"):
        torch.manual_seed(len(axis))
        reward = RewardModel(load_scalar(stories), tokenizer, RewardCard(domain=axis))
        reward.save(root / f"reward_{axis}" / "model")
    prompts = [
        Prompt(
            messages=[{"role": "user", "content": f"Tell a story about animal {n}"}],
            domain="safety" if n % 3 == 0 else "helpfulness",
            category="abc"[n % 3],
        )
        for n in range(9)
    ]
    (root / "prepare").mkdir()
    write_prompts(root / "prepare" / "eval_prompts.jsonl", prompts)
    return root


def context(root, version, inputs):
    folder = root / "runs" / version
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    config = SimpleNamespace(
        base=SimpleNamespace(source="path"),
        evaluate=EvaluateConfig(
            generation=GenerationConfig(max_new_tokens=12),
            bootstrap_samples=100,
            checkpoint_every=4,
        ),
        compute=ComputeConfig(device="cpu"),
        inference=InferenceConfig(),
    )
    return StageContext(
        version=version,
        stage="evaluate",
        config=config,
        options={},
        inputs=inputs,
        out=folder / "out",
        scratch=folder / "scratch",
        seed=11,
        workspace=root,
    )


def digests(folder):
    return {path.name: sha256_file(path) for path in sorted(folder.iterdir())}


def test_sft_then_a_version_with_ppo_then_a_killed_run(parts, tmp_path, monkeypatch):
    sft = context(
        tmp_path,
        "sft",
        {"policy": parts / "sft", "sft_policy": parts / "sft", "prepare": parts / "prepare"},
    )
    evaluate.run(sft)
    sft.write_notes()
    assert sft.metrics["kl_sft"] == 0
    assert "win_helpfulness" not in sft.metrics  # no judge yet
    assert math.isnan(sft.metrics["false_refusal"]), "no phrase matches: it is not known"
    assert read_json(sft.out / "winrates.json")["rows"] == []

    inputs = {
        "policy": parts / "v1",
        "no_ppo": parts / "v1-no-ppo",
        "sft_policy": parts / "sft",
        "parent_policy": parts / "sft",
        "prepare": parts / "prepare",
        "reward_helpfulness": parts / "reward_helpfulness",
        "reward_safety": parts / "reward_safety",
        "guard_helpfulness": parts / "reward_safety",  # any other pair of models
        "guard_safety": parts / "reward_helpfulness",
        "earlier/sft": sft.out,
    }
    # An older release, whose phrases found a refusal in every answer.
    old = read_table(sft.out / "responses.parquet")
    write_table(sft.out / "responses.parquet", old.assign(refused=True))
    standings = read_json(sft.out / "standings.json")
    standings[0]["figures"]["refusal_harmful"] = 1.0
    atomic_write_json(sft.out / "standings.json", standings)
    v1 = context(tmp_path, "rlhf-v1", inputs)
    evaluate.run(v1)
    v1.write_notes()
    assert v1.metrics["kl_sft"] > 0
    assert v1.metrics["kl_sft"] == v1.metrics["kl_parent"]
    assert 0 <= v1.metrics["win_rate/rm/helpfulness_vs_sft"] <= 1
    assert v1.metrics["win_helpfulness"] == v1.metrics["win_rate/rm/helpfulness_vs_sft"]
    assert "no_ppo/win_safety" in v1.metrics
    winrates = read_json(v1.out / "winrates.json")
    assert winrates["judges"] == ["rm", "guard"]
    assert {row["judge"] for row in winrates["rows"]} == {"rm", "guard"}
    once = read_table(v1.out / "responses.parquet").n_tokens.sum()
    assert v1.metrics["tokens_generated"] > 2 * once, "one prompt is answered 25 times by each arm"
    assert 0 < v1.metrics["self_bleu_per_prompt"] < 1
    assert v1.metrics["leaked_prompts"] == 0
    own = read_table(v1.out / "responses.parquet")
    assert sorted(own.arm.unique()) == ["final", "no_ppo"]
    scores = read_table(v1.out / "scores.parquet")
    assert sorted(scores.side.unique()) == ["rlhf-v1", "rlhf-v1/no_ppo", "sft"]
    assert scores.rm_safety.notna().all()
    sides = {row["side"]: row["figures"] for row in read_json(v1.out / "standings.json")}
    assert sides["sft"]["win_helpfulness"] == 0.5
    assert sides["sft"]["kl_sft"] == 0
    assert sides["sft"]["refusal_harmful"] == 0, "by today's phrases, as this version's"
    assert sides["rlhf-v1"]["false_refusal_rise/sft"] == 0
    assert v1.datasets[0]["rows"] == 9
    assert (v1.out / "path.png").read_bytes()[:4] == b"\x89PNG"

    # Killed after the first shard of answers, then called again with the same scratch.
    again = context(tmp_path / "again", "rlhf-v1", inputs)
    real, calls = TransformersEngine.sample, []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(TransformersEngine, "sample", dies)
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(again)
    monkeypatch.setattr(TransformersEngine, "sample", real)
    again = context(tmp_path / "again", "rlhf-v1", inputs)
    evaluate.run(again)
    again.write_notes()
    assert digests(again.out) == digests(v1.out)


def test_too_long_answers_are_refused_with_the_key(parts, tmp_path):
    ctx = context(
        tmp_path,
        "sft",
        {"policy": parts / "sft", "sft_policy": parts / "sft", "prepare": parts / "prepare"},
    )
    ctx.config.evaluate = EvaluateConfig(generation=GenerationConfig(max_new_tokens=100_000))
    from alignment.errors import ConfigError

    with pytest.raises(ConfigError, match="no room for a prompt") as caught:
        evaluate.run(ctx)
    assert caught.value.where == "evaluate.generation.max_new_tokens"


def test_a_student_answers_beside_the_policy_and_goes_its_own_way(parts, tmp_path):
    shared = {"sft_policy": parts / "sft", "prepare": parts / "prepare"}
    students = {"student": parts / "v1-no-ppo", "sft_student": parts / "v1-no-ppo"}
    sft = context(tmp_path, "sft", {**shared, "policy": parts / "sft", **students})
    evaluate.run(sft)
    assert sft.metrics["student/kl_sft"] == 0  # its own start, not the policy's
    inputs = {
        **shared,
        "policy": parts / "v1",
        "student": parts / "v1",
        "sft_student": parts / "v1-no-ppo",
        "parent_policy": parts / "sft",
        "reward_helpfulness": parts / "reward_helpfulness",
        "reward_safety": parts / "reward_safety",
        "earlier/sft": sft.out,
    }
    v1 = context(tmp_path, "rlhf-v1", inputs)
    evaluate.run(v1)
    v1.write_notes()
    sides = [row["side"] for row in read_json(v1.out / "standings.json")]
    assert sides == ["sft", "sft/student", "rlhf-v1", "rlhf-v1/student"]
    # The same weights and prompts as the policy's: the same answers, half the wins.
    assert v1.metrics["student/win_rate/rm/helpfulness_vs_rlhf-v1"] == 0.5
    assert 0 < v1.metrics["student/kl_sft"] != v1.metrics["kl_sft"]
    pairs = {(row["side"], row["best"]) for row in read_json(v1.out / "forgetting.json")}
    assert pairs == {("rlhf-v1", "sft"), ("rlhf-v1/student", "sft/student")}
    stages = {"sft": {"evaluate": sft.out}, "rlhf-v1": {"evaluate": v1.out}}
    found = compare(stages)
    assert [entry.title for entry in found.entries][1::2] == ["sft (student)", "rlhf-v1 (student)"]
    assert [point.side for point in points(found, "rm")] == ["sft", "rlhf-v1"]
