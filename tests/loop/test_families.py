"""Kinds of models that need something of their own, through every stage of a version with PPO."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_templates import family_tokenizer
from model_helpers import bytes_tokenizer, tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignment.config.load import check_program
from alignment.execution.runner import Runner
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.export import export_policy
from alignment.models.load import load_tokenizer
from alignment.pipeline.approval import Decisions
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.plan import build_plan
from alignment.pipeline.preflight import preflight

WORDS = ["bread", "glass", "paper", "rain", "salt", "iron", "wool", "wood", "tin", "clay"]
BRIEF = {"generation": {"max_new_tokens": 6}}


def deliver(path: Path) -> None:
    """Comparisons of both domains. Every third has a system turn, and every seventh is longer than
    the models' context of 256 tokens."""
    rows = []
    for number in range(120):
        one, two = WORDS[number % 10], WORDS[(number // 10 + number + 1) % 10]
        more = " please" * 100 if number % 7 == 0 else ""
        turns = [{"role": "user", "content": f"tell me about {one} and {two}, {number}{more}"}]
        if number % 3 == 0:
            turns.insert(0, {"role": "system", "content": "Be brief."})
        rows.append(
            {
                "conversation": turns,
                "chosen": f"{one} is good",
                "rejected": f"no {two}",
                "strength": "better",
                "domain": "safety" if number % 2 else "helpfulness",
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(folder: Path, model: Any, tokenizer: Any) -> Path:
    """The workspace of a program on `model`, done to its end."""
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    deliver(folder / "data.jsonl")
    program = check_program(
        {
            "name": "family",
            "workspace": str(folder / "w"),
            "base": {"source": "path", "path": str(folder / "base")},
            "intake": {"source": "split", "path": str(folder / "data.jsonl")},
            "data": {"max_evaluation": 4, "arrivals": 1},
            "finetune": {
                name: {"batch": batch, "per_device_train_batch_size": batch, "epochs": epochs}
                | {"max_length": 128}
                for name, batch, epochs in (("sft", 1, 2), ("rejection", 1, 24))
            },
            "rewards": {"batch": 1, "max_length": 128},
            "sample": {"prompts": 4, "k": 2, "temperature": 0.8, **BRIEF},
            "select": {"finished_only": False, "safety_threshold": 0.0},
            "ppo": {
                "iterations": 1,
                "episodes": 4,
                "minibatch": 4,
                "warmup_iterations": 0,
                "stop": {"look_every": 1, "heldout_prompts": 2, "keep": "last"},
                **BRIEF,
            },
            "evaluate": {"bootstrap_samples": 100, **BRIEF},
            "compute": {"threads": 1},
            "versions": [{"name": "rlhf-v1", "bag": "previous", "ppo": True}],
        }
    )
    nodes = build_plan(program, Decisions(program))
    preflight(program, nodes)
    with Runner(program) as runner:
        for node in nodes:
            runner.run_node(node)
    done = Fingerprints.load(program)
    manifest = done.manifest("rlhf-v1", "ppo")
    assert manifest is not None
    policy = done.ledger.committed_dir("rlhf-v1", "ppo", manifest.fingerprint)
    return export_policy(policy, folder / "exported")


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe"])
def test_a_mixture_of_experts(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    model.config.output_router_logits = True  # as some published ones say
    exported: Any = AutoModelForCausalLM.from_pretrained(
        run(tmp_path, model, bytes_tokenizer()), dtype=torch.float32
    )
    assert exported.config.output_router_logits is False
    ids = torch.tensor([[3, 4, 5]])
    assert exported.generate(ids, max_new_tokens=3, do_sample=False).shape[1] <= 6


def as_trained(exported: Path) -> None:
    """The exported model's own template renders what the stages trained on."""
    turns: Any = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "what?"},
    ]
    own: Any = AutoTokenizer.from_pretrained(exported)
    text = own.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    ids = own.encode(text, add_special_tokens=False)
    trained = ChatRenderer(load_tokenizer(exported)).prompt(turns)
    assert trained[: len(ids)] == ids  # Qwen3's has a block after it that says: no thoughts


def test_a_template_with_its_own_turn_end_and_no_system_turn(tmp_path: Path) -> None:
    tokenizer = family_tokenizer("gemma")
    model = tiny_model("llama", len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    as_trained(run(tmp_path, model, tokenizer))
