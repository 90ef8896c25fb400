"""One backbone for all roles: same start, separate learning, small checkpoints."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from model_helpers import bytes_tokenizer
from toys import renderer, tiny_llama
from transformers import LlamaForSequenceClassification

from alignment.config.lora import LoraConfig
from alignment.config.ppo import PPOConfig
from alignment.models.chat_renderer import Tokens
from alignment.rewards.card import RewardCard
from alignment.training.ppo.adapters import SharedBackbone
from alignment.training.ppo.scoring import PlainReward, PromptItem
from alignment.training.ppo.trainer import PPOTrainer

CONFIG = {
    "episodes": 16,
    "minibatch": 8,
    "iterations": 4,
    "generation": {"max_new_tokens": 5},
    "learning_rate": 1e-2,
    "critic_learning_rate": 1e-2,
    "warmup_iterations": 0,
    "lora": {},
    "critic_init": "policy",
    "checkpoint_every": 1,
    "stop": {"look_every": 0},
}


def build(place: Path | None, **changes: object) -> tuple[SharedBackbone, PPOTrainer]:
    shared = SharedBackbone(tiny_llama(10), LoraConfig(r=4, alpha=8), seed=3)
    trainer = PPOTrainer(
        shared.roles(critic=True),
        renderer(),
        [PromptItem((1, 2)), PromptItem((3,))],
        PlainReward(
            lambda rows: np.array([np.mean(np.array(e.tokens.response) % 2) for e in rows])
        ),
        PPOConfig.model_validate({**CONFIG, **changes}),
        seed=2,
        ends=(0,),
        checkpoints=place,
    )
    return shared, trainer


def test_policy_starts_as_the_reference_and_leaves_it() -> None:
    base = {n: p.clone() for n, p in tiny_llama(10).named_parameters()}
    shared, trainer = build(None)
    first = trainer.iterate(0)
    assert abs(first["kl/reference"]) < 1e-6
    assert first["policy/first_ratio_error"] <= 1e-5
    for iteration in range(1, 4):
        later = trainer.iterate(iteration)
    assert later["kl/k3"] > 1e-6
    ids = torch.tensor([[1, 2, 3]])
    with shared.active(None), torch.no_grad():
        bare = shared.model(input_ids=ids).logits
    torch.testing.assert_close(bare, tiny_llama(10)(input_ids=ids).logits)
    frozen = {n: p for n, p in shared.model.named_parameters() if "lora_" not in n}
    for name, value in base.items():
        layered = name.replace(".weight", ".base_layer.weight")
        assert torch.equal(value, frozen[name] if name in frozen else frozen[layered])


def test_merging_keeps_what_the_policy_says() -> None:
    shared, trainer = build(None)
    trainer.train()
    ids = torch.tensor([[1, 2, 3, 4]])
    with shared.active("policy"), torch.no_grad():
        before = shared.model(input_ids=ids).logits
    merged = shared.merged()
    assert not any("lora_" in name for name, _ in merged.named_parameters())
    with torch.no_grad():
        torch.testing.assert_close(merged(input_ids=ids).logits, before, atol=1e-5, rtol=1e-4)


def test_an_adapter_over_a_rounded_backbone_is_merged_in_float32() -> None:
    shared, trainer = build(None)
    trainer.train()
    learned = shared.adapter("policy")
    with torch.no_grad():
        for parameter in learned.values():
            parameter.mul_(1e-3)  # an update that a weight in bfloat16 would mostly lose
    shared.model.to(torch.bfloat16)
    for parameter in learned.values():
        parameter.data = parameter.data.float()
    merged = shared.merged(tiny_llama(10)).state_dict()
    plain = tiny_llama(10).state_dict()
    layer = "model.layers.0.self_attn.q_proj"
    down, up = (next(p for n, p in learned.items() if f"{layer}.lora_{side}" in n) for side in "AB")
    scaling = shared.peft.peft_config["policy"].lora_alpha / shared.peft.peft_config["policy"].r
    update = merged[f"{layer}.weight"] - plain[f"{layer}.weight"]
    assert merged[f"{layer}.weight"].dtype == torch.float32
    torch.testing.assert_close(update, scaling * up @ down, atol=1e-7, rtol=1e-3)


def test_resume_holds_adapters_only_and_is_exact(tmp_path: Path) -> None:
    whole, trainer = build(tmp_path / "whole")
    trainer.train()
    _, broken = build(tmp_path / "broken", iterations=2)
    broken.train()
    resumed, again = build(tmp_path / "broken")
    again.train()
    for name, value in whole.adapter("policy").items():
        assert torch.equal(value, resumed.adapter("policy")[name])
    size = (tmp_path / "whole" / "step-000004" / "state.safetensors").stat().st_size
    assert size < 4 * sum(p.numel() for p in trainer.roles.modules["policy"].parameters()) * 12


def test_a_reward_adapter_scores_on_the_shared_backbone(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = tiny_llama(10)
    config = copy.deepcopy(base.config)
    config.num_labels, config.pad_token_id = 1, 0
    scalar = LlamaForSequenceClassification(config)
    scalar.model.load_state_dict(base.model.state_dict())
    lora = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], task_type="SEQ_CLS")
    tuned = get_peft_model(scalar, lora).eval()
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    tuned.save_pretrained(tmp_path)
    shared, _ = build(None)
    bytes_tokenizer("").save_pretrained(tmp_path)
    reward = shared.reward("helpfulness", tmp_path, RewardCard("helpfulness", bias=0.25))
    items = [Tokens([1, 2], [3, 4]), Tokens([5], [6, 7, 8])]
    with torch.no_grad():
        expected = [
            float(
                tuned.base_model.model.score(
                    tuned.base_model.model.model(input_ids=torch.tensor([i.ids])).last_hidden_state
                )[0, -1, 0]
            )
            for i in items
        ]
    np.testing.assert_allclose(reward.score(items), np.array(expected) + 0.25, atol=1e-5)
