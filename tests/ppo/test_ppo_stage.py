"""The stage from model directories to a policy, its critic, curves and verdicts; killed and not."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
from alignment.config.ppo import PPOConfig
from alignment.config.rewards import CombineConfig
from alignment.models.load import load_policy
from alignment.preferences.prompts import Prompt, write_prompts
from alignment.rewards.model import RewardCard, RewardModel
from alignment.stages.context import StageContext
from alignment.training import checkpoint
from alignment.training.ppo.roles import load_critic

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
SETTINGS: dict[str, Any] = {
    "iterations": 4,
    "episodes": 8,
    "minibatch": 4,
    "max_new_tokens": 5,
    "learning_rate": 1e-3,
    "critic_learning_rate": 1e-3,
    "checkpoint_every": 1,
    "ptx": {"coefficient": 0.1},
    "stop": {"guard_every": 2, "heldout_prompts": 4},
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
    (root / "prepare").mkdir()
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


def context(root: Path, inputs: dict[str, Path], name: str, **changes: Any) -> StageContext:
    out, scratch = root / name / "out", root / name / "scratch"
    out.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(parents=True, exist_ok=True)
    config: Any = SimpleNamespace(
        ppo=PPOConfig.model_validate({**SETTINGS, **changes}),
        combine=CombineConfig(),
        compute=ComputeConfig(device="cpu"),
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
    assert {v["name"] for v in kept["verdicts"]} >= {"first_ratio", "critic", "guard"}
    critic = load_critic(ctx.out / "critic")
    assert torch.isfinite(critic.head.weight).all()
    assert [row["step"] for row in ctx.series.rows()] == [0, 1, 2, 3, 4]
    assert ctx.metrics["iterations"] == 4
    assert {row["name"] for row in ctx.datasets} == {"ppo_prompts", "ptx_demonstrations"}


@pytest.mark.parametrize(
    "changes",
    [
        {"algorithm": "rloo", "samples_per_prompt": 2},
        {"share_backbone": True, "critic_init": "policy", "stop": {"guard_every": 0}},
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


def test_killed_and_run_again_the_bytes_are_the_same(
    tmp_path: Path, inputs: dict[str, Path]
) -> None:
    """kill -9 as soon as a first, then a third checkpoint is there."""
    whole = context(tmp_path, inputs, "whole", iterations=8)
    stage.run(whole)
    description = json.dumps({name: str(path) for name, path in inputs.items()})
    broken = context(tmp_path, inputs, "broken", iterations=8)
    for wanted in (1, 3):
        process = subprocess.Popen(
            [sys.executable, __file__, str(tmp_path), description],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        deadline = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < deadline:
            if (checkpoint.latest(broken.scratch / "checkpoints") or 0) >= wanted:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        process.wait(timeout=60)
    stage.run(broken)
    assert digests(broken.out) == digests(whole.out)


if __name__ == "__main__":
    given = {name: Path(path) for name, path in json.loads(sys.argv[2]).items()}
    stage.run(context(Path(sys.argv[1]), given, "broken", iterations=8))
