"""The stage from model directories to a policy, its critic, curves and verdicts; killed and not."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

import alignment.stages.ppo as stage
from alignment.config.compute import ComputeConfig
from alignment.config.inference import InferenceConfig
from alignment.config.lora import LoraConfig
from alignment.config.ppo import PPOConfig
from alignment.config.rewards import CombineConfig
from alignment.errors import ConfigError
from alignment.models.adapters import add_adapter, save_adapter
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.load import load_policy, load_tokenizer, save_model
from alignment.preferences.prompts import Prompt, read_prompts, write_prompts
from alignment.preferences.stop_set import STOP_FILE
from alignment.rewards.adapter import inject
from alignment.rewards.card import RewardCard
from alignment.rewards.model import RewardModel
from alignment.rewards.threshold import fitted, write_labelled
from alignment.stages.context import StageContext
from alignment.training.ppo.health import Verdict
from alignment.training.ppo.roles import load_critic
from alignment.training.ppo.setup import Builder
from alignment.training.ppo.trainer import Outcome
from alignment.utils import checkpoint
from alignment.utils.progress import SilentProgress

WORDS = [
    "<eos>",
    "<unk>",
    "one",
    "two",
    "three",
    "four",
    "good",
    "bad",
    "no",
    "fire",
    "Human",
    "Assistant",
    ":",
]
LONG: dict[str, Any] = {
    "iterations": 40,
    "stop": {"look_every": 2, "heldout_prompts": 4, "patience": None},
}
SETTINGS: dict[str, Any] = {
    "iterations": 4,
    "episodes": 8,
    "minibatch": 4,
    "generation": {"max_new_tokens": 5},
    "learning_rate": 1e-3,
    "critic_learning_rate": 1e-3,
    "checkpoint_every": 1,
    "ptx": {"coefficient": 0.1},
    "stop": {"look_every": 2, "heldout_prompts": 4},
}


def make_inputs(root: Path) -> dict[str, Path]:
    """A policy, two reward models, prompts and demonstrations."""
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<eos>", unk_token="<unk>"
    )
    settings = {
        "vocab_size": len(WORDS),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    policy = root / "policy" / "model"
    LlamaForCausalLM(LlamaConfig(**settings)).save_pretrained(policy)
    tokenizer.save_pretrained(policy)
    inputs = {"policy": root / "policy", "prepare": root / "prepare"}
    for domain in ("helpfulness", "safety"):
        scalar = LlamaForSequenceClassification(LlamaConfig(**settings, num_labels=1))
        card = RewardCard(domain, bias=0.1, mean=0.2, std=0.5)
        inputs[f"reward_{domain}"] = root / domain
        RewardModel(scalar, tokenizer, card).save(root / domain / "model")
    prompts = [
        Prompt(
            messages=[
                {"role": "user", "content": " ".join(WORDS[2 + (n + i) % 8] for i in range(3))}
            ],
            domain="safety" if n % 3 == 0 else "helpfulness",
            category=f"c{n}",
        )
        for n in range(24)
    ]
    (root / "prepare").mkdir(parents=True)
    write_prompts(root / "prepare" / "prompts.jsonl", prompts)
    rows = [
        {
            "messages": prompt.messages,
            "response": "good one",
            "domain": prompt.domain,
            "category": prompt.category,
        }
        for prompt in prompts
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "prepare" / "demonstrations.jsonl").write_text(text)
    return inputs


def with_adapters(root: Path, inputs: dict[str, Path], *, over_adapter: bool) -> dict[str, Path]:
    """The same inputs, the reward models as LoRA adapters over the policy's checkpoint; with
    `over_adapter` PPO starts from an adapter over it too."""
    start = inputs["policy"] / "model"
    policy = load_policy(start)
    found = dict(inputs)
    for number, domain in enumerate(("helpfulness", "safety")):
        config = LlamaConfig(**{**policy.config.to_dict(), "num_labels": 1})
        torch.manual_seed(number)
        scalar = LlamaForSequenceClassification(config)
        scalar.model.load_state_dict(policy.model.state_dict())
        inject(scalar, LoraConfig(r=2), seed=number)
        for name, parameter in scalar.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        model = RewardModel(scalar, load_tokenizer(start), RewardCard(domain, bias=0.1, std=0.5))
        model.save_adapter(start, root / domain / "model")
        found[f"reward_{domain}"] = root / domain
    if over_adapter:
        tuned = add_adapter(load_policy(start), LoraConfig(r=2), seed=9)
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        save_adapter(tuned, load_tokenizer(start), root / "chat" / "model", start)
        found["policy"] = root / "chat"
    return found


class Telling(SilentProgress):
    """Keeps what is said."""

    def __init__(self, said: list[str]):
        self._said = said

    def say(self, message: str) -> None:
        self._said.append(message)


def shout(conversation: Any, answer: str) -> float:
    """A part of the reward that a config may name."""
    return float("fire" in answer) + len(conversation)


_SHARDED: dict[str, Any] = {"sharding": "full", "processes": 2}


def context(root: Path, inputs: dict[str, Path], name: str, **changes: Any) -> StageContext:
    out, scratch = root / name / "out", root / name / "scratch"
    out.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(parents=True, exist_ok=True)
    inference = InferenceConfig.model_validate(changes.pop("inference", {}))
    config: Any = SimpleNamespace(
        ppo=PPOConfig.model_validate({**SETTINGS, **changes}),
        combine=CombineConfig(),
        compute=ComputeConfig(device="cpu", **_SHARDED if name.startswith("sharded") else {}),
        inference=inference,
    )
    return StageContext(
        version="rlhf-v5",
        stage="ppo",
        config=config,
        options={},
        inputs=inputs,
        out=out,
        scratch=scratch,
        seed=5,
        workspace=root,
    )


def digests(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {
        str(p.relative_to(directory)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def test_the_stage_writes_policy_critic_curves_and_verdicts(
    tmp_path: Path, inputs: dict[str, Path]
) -> None:
    ctx = context(tmp_path, inputs, "whole")
    stage.run(ctx)
    policy = load_policy(ctx.out / "model")
    start = load_policy(inputs["policy"] / "model")
    kept = json.loads((ctx.out / "health.json").read_text())
    moved = any(
        not torch.equal(a, b) for a, b in zip(policy.parameters(), start.parameters(), strict=True)
    )
    assert moved == (kept["kept_iteration"] > 0)
    assert {v["name"] for v in kept["verdicts"]} >= {"first_ratio", "critic", "held_out"}
    critic = load_critic(ctx.out / "critic")
    assert torch.isfinite(critic.head.weight).all()
    assert [row["step"] for row in ctx.series.rows()] == [0, 1, 2, 3, 4]
    assert ctx.metrics["iterations"] == 4
    assert {row["name"] for row in ctx.datasets} == {"ppo_prompts", "ptx_demonstrations"}


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "rloo", "samples_per_prompt": 2},
        {"lora": {}, "critic_init": "policy", "stop": {"look_every": 0}},
        {"critic_init": "safety", "safety_share": 0.5, "stop": {"keep": "last"}},
    ],
)
def test_other_ways_to_run_it(
    tmp_path: Path, inputs: dict[str, Path], changes: dict[str, Any]
) -> None:
    ctx = context(tmp_path, inputs, "other", **{"iterations": 2, **changes})
    stage.run(ctx)
    logits = load_policy(ctx.out / "model")(input_ids=torch.tensor([[2, 3]])).logits
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("over_adapter", [False, True])
def test_five_roles_share_one_backbone(
    tmp_path: Path, inputs: dict[str, Path], over_adapter: bool
) -> None:
    shared = with_adapters(tmp_path, inputs, over_adapter=over_adapter)
    changes = {"lora": {}, "critic_init": "policy", "stop": {"look_every": 0}}
    said: list[str] = []
    ctx = context(tmp_path, shared, "shared", **changes)
    ctx.progress = Telling(said)
    stage.run(ctx)
    assert not any("loaded separately" in line for line in said)
    first = ctx.series.rows()[0]
    assert abs(first["kl/reference"]) < 1e-5
    # The same start with a copy of every model gives the same first batch and scores.
    copies = context(tmp_path, shared, "copies", **{**changes, "lora": None})
    stage.run(copies)
    other = copies.series.rows()[0]
    for name in ("score/mean", "score/helpfulness", "score/safety", "answer/tokens"):
        assert first[name] == pytest.approx(other[name], abs=1e-4), name
    assert ctx.series.rows()[-1]["kl/k3"] > 0


def other_policy(directory: Path, start: Path, *, adapter: bool = False) -> Path:
    """A stage's directory with a policy that speaks otherwise than `start`."""
    torch.manual_seed(3)
    policy = load_policy(start)
    if adapter:
        policy = add_adapter(policy, LoraConfig(r=2), seed=4)
    for name, parameter in policy.named_parameters():
        if not adapter or "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    if adapter:
        save_adapter(policy, load_tokenizer(start), directory / "model", start)
    else:
        save_model(policy, load_tokenizer(start), directory / "model")
    return directory


@pytest.mark.parametrize(
    ("lora", "over_adapter", "reference", "apart"),
    [
        (False, False, "full", False),
        (True, False, "adapter", False),
        (True, True, "adapter", False),
        (True, True, "base", False),
        (True, False, "full", True),
    ],
)
def test_another_policy_can_be_the_reference(
    tmp_path: Path,
    inputs: dict[str, Path],
    lora: bool,
    over_adapter: bool,
    reference: str,
    apart: bool,
) -> None:
    """Its log-probabilities are those of that policy's file, whatever else shares the backbone."""
    base = inputs["policy"] / "model"
    other = inputs["policy"]
    if reference != "base":
        other = other_policy(tmp_path / "sft", base, adapter=reference == "adapter")
    used = with_adapters(tmp_path, inputs, over_adapter=over_adapter) if lora else inputs
    changes: dict[str, Any] = {"lora": {}, "critic_init": "policy"} if lora else {}
    config = PPOConfig.model_validate({**SETTINGS, **changes})
    said: list[str] = []
    start = used["policy"] / "model"
    rewards = {domain: used[f"reward_{domain}"] for domain in ("helpfulness", "safety")}
    build = Builder(
        start, rewards, config, "float32", torch.device("cpu"), 5, said.append,
        reference=other / "model",
    )  # fmt: skip
    roles = build.roles()
    assert any("ppo.reference" in line for line in said) == apart
    ids = torch.tensor([[2, 3, 6, 7]])
    where = torch.arange(4)
    row = torch.zeros(4, dtype=torch.long)
    with torch.no_grad():
        for role, directory in ((roles.reference, other / "model"), (roles.policy, start)):
            with role.active():
                found = role.logits(ids, row, where)
            wanted = load_policy(directory)(input_ids=ids).logits[0]
            assert torch.allclose(found, wanted, atol=1e-5)
    assert not roles.reference.parameters


def test_with_another_reference_the_divergence_is_above_zero_from_the_start(
    tmp_path: Path, inputs: dict[str, Path]
) -> None:
    other = other_policy(tmp_path / "sft", inputs["policy"] / "model")
    ctx = context(tmp_path, {**inputs, "reference": other}, "sft", iterations=2, reference="sft")
    stage.run(ctx)
    assert next(row["kl/k3"] for row in ctx.series.rows() if "kl/k3" in row) > 1e-3
    verdicts = json.loads((ctx.out / "health.json").read_text())["verdicts"]
    assert "moved" not in {verdict["name"] for verdict in verdicts}


@pytest.mark.parametrize("kept", [0, 2])
def test_it_says_where_nothing_that_was_learned_is_kept(tmp_path: Path, kept: int) -> None:
    said: list[str] = []
    ctx = context(tmp_path, {}, "kept")
    ctx.progress = Telling(said)
    history = [{"score/mean": 1.0, "answer/tokens": 3.0}]
    stage._report(ctx, Outcome(4, None, kept, history, []), 0)
    assert any("kept the policy that it started from" in line for line in said) == (kept == 0)


def test_it_does_not_advise_to_keep_what_forgot(tmp_path: Path) -> None:
    said: list[str] = []
    ctx = context(tmp_path, {}, "kept", stop={"keep": "last"})
    ctx.progress = Telling(said)
    history = [{"score/mean": 1.0, "answer/tokens": 3.0}]
    forgets = Verdict("forgets", "warning", 0.03, 0.02, "It forgets.", "Less.")
    stage._report(ctx, Outcome(4, "the loss rose", 0, history, [forgets]), 0)
    assert said == [
        "PPO kept the policy that it started from: it forgot before any look was to be kept",
        "It forgets. Less.",
    ]


def test_a_reward_model_over_another_backbone_is_loaded_on_its_own(
    tmp_path: Path, inputs: dict[str, Path]
) -> None:
    said: list[str] = []
    changes = {"lora": {}, "critic_init": "policy", "iterations": 1}
    ctx = context(tmp_path, inputs, "own", **changes)
    ctx.progress = Telling(said)
    stage.run(ctx)
    assert sum("loaded separately" in line for line in said) == 2


def test_a_prompt_longer_than_the_context_loses_its_beginning(
    tmp_path: Path, inputs: dict[str, Path]
) -> None:
    """Without `max_prompt_tokens` the context of 64 less 5 new tokens is the limit."""
    long = Prompt(
        messages=[{"role": "user", "content": " ".join([WORDS[2]] * 200)}],
        domain="safety",
        category="long",
    )
    shutil.copytree(inputs["prepare"], tmp_path / "prepare")
    prompts = read_prompts(tmp_path / "prepare" / "prompts.jsonl")
    write_prompts(tmp_path / "prepare" / "prompts.jsonl", [*prompts[:5], long])
    ctx = context(tmp_path, {**inputs, "prepare": tmp_path / "prepare"}, "long", iterations=1)
    stage.run(ctx)
    assert (ctx.out / "model" / "model.safetensors").is_file()


def test_guards_judge_the_looks_when_there_are_any(tmp_path: Path, inputs: dict[str, Path]) -> None:
    guards = {f"guard_{d}": inputs[f"reward_{d}"] for d in ("helpfulness", "safety")}
    # Guards with the roles changed: their verdict differs from the training reward's.
    guards["guard_safety"], guards["guard_helpfulness"] = (
        guards["guard_helpfulness"],
        tmp_path / "harsh",
    )
    harsh = RewardModel.load(inputs["reward_helpfulness"] / "model")
    harsh.card = RewardCard("helpfulness", bias=-7.0)
    harsh.save(tmp_path / "harsh" / "model")
    ctx = context(tmp_path, {**inputs, **guards}, "guarded")
    stage.run(ctx)
    looks = [row for row in ctx.series.rows() if "look/score" in row]
    assert len(looks) == 3
    assert all(row["look/score"] < row["look/training_reward"] - 5 for row in looks)


def test_a_function_of_ones_own_is_part_of_the_reward(
    tmp_path: Path, inputs: dict[str, Path]
) -> None:
    part = {"name": "shout", "function": f"{Path(__file__).stem}:shout", "weight": 2.0}
    ctx = context(tmp_path, inputs, "parts", iterations=1, parts=[part])
    stage.run(ctx)
    row = next(row for row in ctx.series.rows() if "score/shout" in row)
    assert 1.0 <= row["score/shout"] <= 2.0
    rest = row["score/mean"] - 2.0 * row["score/shout"]
    plain = row["score/helpfulness"] + row["score/safety"]
    assert rest == pytest.approx(plain, abs=1e-4)
    part["function"] = "nowhere:shout"
    with pytest.raises(ConfigError, match="cannot be imported"):
        stage.run(context(tmp_path, inputs, "missing", parts=[part]))


@pytest.mark.parametrize("wish", [{"precision": 0.9}, {"recall": 0.8}])
def test_the_threshold_is_fitted_to_held_out_answers(
    tmp_path: Path, inputs: dict[str, Path], wish: dict[str, float]
) -> None:
    """Unsafe up to 0.2 and once at 0.6: both cut between 0.2 and 0.3."""
    safety = tmp_path / "safety"
    RewardModel.load(inputs["reward_safety"] / "model").save(safety / "model")
    chance = np.array([*np.linspace(0.1, 0.2, 20), 0.3, 0.6, 0.9])
    write_labelled(safety, (chance < 0.25) | (chance == 0.6), chance, np.arange(23))
    combine = CombineConfig.model_validate({"method": "piecewise", "threshold_for": wish})
    found = fitted(combine, safety)
    assert 0.19 < found.threshold < 0.3
    ctx = context(tmp_path, {**inputs, "reward_safety": safety}, "fitted", iterations=1)
    ctx.config.combine = combine  # type: ignore[attr-defined]
    stage.run(ctx)
    assert "reward/under_threshold" in ctx.series.rows()[-1]
    write_labelled(safety, np.array([False]), np.array([0.5]), np.array([0]))
    with pytest.raises(ConfigError, match="cannot be fitted"):
        fitted(combine, safety)
    # Where P(safe) means nothing, no threshold is used, so none has to be found.
    few = RewardModel.load(inputs["reward_safety"] / "model")
    few.card = replace(few.card, labelled=3)
    few.save(safety / "model")
    ctx = context(tmp_path, {**inputs, "reward_safety": safety}, "few", iterations=1)
    ctx.config.combine = combine  # type: ignore[attr-defined]
    stage.run(ctx)


def run_broken(root: str, described: str, wanted: int, delay: float) -> None:
    """Runs the stage until it is killed, `delay` seconds after the checkpoint that is wanted."""
    torch.set_num_threads(1)
    given = {name: Path(path) for name, path in json.loads(described).items()}
    ctx = context(Path(root), given, "broken", **LONG)

    def kill() -> None:
        while (checkpoint.latest(ctx.scratch / "checkpoints") or 0) < wanted:
            time.sleep(0.001)
        time.sleep(delay)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    stage.run(ctx)


def test_early_stopping_looks_at_the_stop_set_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_inputs(tmp_path)
    path = inputs["prepare"] / "prompts.jsonl"
    prompts = list(
        {prompt.messages[0]["content"]: prompt for prompt in read_prompts(path)}.values()
    )
    write_prompts(path, prompts)
    told: list[str] = []
    found = {}
    for name in ("pool", "reserved"):
        if name == "reserved":
            write_prompts(path, prompts[3:])
            write_prompts(path.with_name(STOP_FILE), prompts[:3])
        ctx = context(tmp_path, inputs, name)
        monkeypatch.setattr(ctx, "progress", Telling(told))
        renderer = ChatRenderer(load_tokenizer(inputs["policy"] / "model"))
        learn, looks = stage._prompts(ctx, ctx.config.ppo, renderer)
        found[name] = [{item.messages[0]["content"] for item in side} for side in (learn, looks)]
        assert not found[name][0] & found[name][1]
    assert found["reserved"][1] == {p.messages[0]["content"] for p in prompts[:3]}
    assert len(told) == 1
    assert "no stop set" in told[0]


def test_killed_ten_times_and_run_again_the_bytes_are_the_same(
    tmp_path: Path, inputs: dict[str, Path]
) -> None:
    """kill -9 at ten random moments, all along the run."""
    torch.set_num_threads(1)
    whole = context(tmp_path, inputs, "whole", **LONG)
    stage.run(whole)
    described = json.dumps({name: str(path) for name, path in inputs.items()})
    broken = context(tmp_path, inputs, "broken", **LONG)
    # One server imports the libraries once; every process is a fork of it.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    moments = np.random.default_rng(7)
    for turn in range(10):
        delay = float(moments.uniform(0, 0.05))
        arguments = (str(tmp_path), described, 1 + 3 * turn, delay)
        process = processes.Process(target=run_broken, args=arguments)
        process.start()
        process.join(240)
        assert process.exitcode == -signal.SIGKILL
    assert (checkpoint.latest(broken.scratch / "checkpoints") or 0) < 40
    stage.run(broken)
    assert digests(broken.out) == digests(whole.out)
