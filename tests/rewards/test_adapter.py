"""LoRA reward models: saved as PEFT saves, folded in when loaded, over their own checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from reward_helpers import random_elements, save_tiny_policy, word_tokenizer
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from alignment.config.lora import LoraConfig
from alignment.config.rewards import RewardsConfig
from alignment.errors import DataError
from alignment.models.adapters import add_adapter, save_adapter
from alignment.models.chat_renderer import Tokens
from alignment.models.digest import weights_digest
from alignment.models.load import load_scalar
from alignment.rewards.adapter import WEIGHTS, inject
from alignment.rewards.card import RewardCard
from alignment.rewards.initial import initial_model
from alignment.rewards.model import RewardModel
from alignment.rewards.train import train

LORA = LoraConfig(r=4, alpha=8, dropout=0.0)


def trained(start: Path, scratch: Path) -> RewardModel:
    """A reward model with its adapter still inside."""
    model = initial_model(start, scratch, seed=1)
    inject(model, LORA, seed=2)
    settings = RewardsConfig(batch=8, learning_rate=1e-2, max_length=64, lora=LORA)
    train(model, random_elements(32), settings, pad=0, seed=3)
    return RewardModel(model, word_tokenizer(), RewardCard("helpfulness", max_length=64))


def items() -> list[Tokens]:
    return [
        Tokens(list(ids[:5]), list(ids[5:]))
        for element in random_elements(6, seed=9)
        for ids in element.sequences
    ]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_tiny_policy(tmp_path / "versions" / "base") / "model"


def test_saved_as_adapter_and_loaded_again(tmp_path: Path, base: Path) -> None:
    reward = trained(base, tmp_path)
    want = reward.score(items())
    out = tmp_path / "versions" / "rm" / "model"
    reward.save_adapter(base, out)
    assert reward.score(items()) == pytest.approx(want, abs=1e-5)
    assert not (out / "model.safetensors").exists()
    size = (out / "adapter_model.safetensors").stat().st_size
    assert size < 0.5 * (base / "model.safetensors").stat().st_size
    loaded = RewardModel.load(out)
    assert loaded.score(items()) == pytest.approx(want, abs=1e-5)
    assert loaded.card.backbone == weights_digest(base)
    assert not [name for name, _ in loaded.model.named_parameters() if "lora" in name]
    assert str(tmp_path) not in (out / "adapter_config.json").read_text()
    # What a critic starts from is the same network.
    with torch.no_grad():
        scores = [load_scalar(out)(torch.tensor([i.ids])).logits.item() for i in items()]
    assert scores == pytest.approx(want.tolist(), abs=1e-5)


def test_an_adapter_that_version_0_1_saved_still_loads(tmp_path: Path, base: Path) -> None:
    """It wrote the scale inside B, every layer by its whole name, and alpha = rank."""
    reward = trained(base, tmp_path)
    want = reward.score(items())
    out = tmp_path / "versions" / "rm" / "model"
    old: dict[str, torch.Tensor] = {}
    for name, module in reward.model.named_modules():
        if isinstance(module, LoraLayer):
            layer: Any = module
            old[f"base_model.model.{name}.lora_A.weight"] = layer.lora_A["default"].weight.detach()
            old[f"base_model.model.{name}.lora_B.weight"] = (
                layer.lora_B["default"].weight.detach() * layer.scaling["default"]
            )
    layers = sorted({name[17:].rpartition(".lora_")[0] for name in old})
    old["base_model.model.score.weight"] = reward.model.score.weight.detach().clone()
    reward.save_adapter(base, out)  # the card and the tokenizer are what they were
    save_file({name: value.contiguous() for name, value in old.items()}, out / WEIGHTS)
    config = {
        "base_model_name_or_path": "base/model",
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": 4,
        "lora_dropout": 0.0,
        "modules_to_save": ["score"],
        "peft_type": "LORA",
        "r": 4,
        "target_modules": layers,
        "task_type": "SEQ_CLS",
    }
    (out / "adapter_config.json").write_text(json.dumps(config))
    assert RewardModel.load(out).score(items()) == pytest.approx(want, abs=1e-5)


def test_peft_reads_it_alone(tmp_path: Path, base: Path) -> None:
    reward = trained(base, tmp_path)
    want = reward.score(items())
    reward.save_adapter(base, tmp_path / "versions" / "rm")
    plain = PeftModel.from_pretrained(load_scalar(base), tmp_path / "versions" / "rm").eval()
    with torch.no_grad():
        found = [plain(torch.tensor([item.ids])).logits.item() for item in items()]
    assert found == pytest.approx(want.tolist(), abs=1e-5)


def test_over_a_policy_that_is_an_adapter_both_become_one(tmp_path: Path, base: Path) -> None:
    policy = add_adapter(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=3, alpha=6, target_modules=("q_proj", "v_proj")),
        seed=5,
    )
    with torch.no_grad():  # as if it had been trained
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    start = tmp_path / "versions" / "sft" / "model"
    save_adapter(policy, word_tokenizer(), start, base)
    reward = trained(start, tmp_path)
    want = reward.score(items())
    out = tmp_path / "versions" / "rm" / "model"
    reward.save_adapter(start, out)
    described = json.loads((out / "adapter_config.json").read_text())
    assert described["r"] == 4 + 3
    assert described["base_model_name_or_path"] == "base/model"
    loaded = RewardModel.load(out)
    assert loaded.score(items()) == pytest.approx(want, abs=1e-5)
    # The policy and its reward model need one checkpoint between them.
    assert loaded.card.backbone == weights_digest(base)
    assert not np.allclose(loaded.score(items()), trained(base, tmp_path).score(items()))


def test_another_checkpoint_under_it_is_refused(tmp_path: Path, base: Path) -> None:
    reward = trained(base, tmp_path)
    out = tmp_path / "versions" / "rm"
    reward.save_adapter(base, out)
    save_tiny_policy(base.parent, seed=7)
    with pytest.raises(DataError, match="not the one"):
        RewardModel.load(out)
