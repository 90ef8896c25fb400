"""The fast paths compute what transformers computes: layers, decoding and scoring."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaConfig,
    Qwen2Config,
)

from alignment.fastpath import packed_linear as linear_module
from alignment.fastpath import use_for_scoring
from alignment.fastpath.decoding import LeanStepper
from alignment.fastpath.layers import Lean, why_not
from alignment.fastpath.packed_linear import PackedLinear
from alignment.fastpath.scoring import LeanScorer
from alignment.models.chat_renderer import Tokens
from alignment.models.stepper import ModelStepper
from alignment.rewards.card import RewardCard
from alignment.rewards.model import RewardModel

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def _model(family: str, kind: Any, tokenizer: Any, sharpness: float = 4.0) -> Any:
    kinds: dict[str, Any] = {"llama": LlamaConfig, "qwen2": Qwen2Config}
    config = kinds[family](
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, num_labels=1, **SHAPE
    )
    torch.manual_seed(3)
    model = kind.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Norms, biases and heads away from their first values: all of them must be used.
            if "norm" in name or "bias" in name:
                weight.add_(torch.randn_like(weight) * 0.2)
            elif "q_proj" in name or "k_proj" in name:
                weight.mul_(sharpness)
    return model


@pytest.fixture(params=[True, False], ids=["packed", "plain"])
def packed(request: Any, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With the packed kernels, where this build of torch has them, and without."""
    if not request.param:
        monkeypatch.setattr(linear_module, "packs", lambda: False)
    elif not linear_module.packs():
        pytest.skip("this build of torch has no packed linear kernels")
    return bool(request.param)


def test_linear_and_what_follows(packed: bool) -> None:
    torch.manual_seed(0)
    for bias in (None, torch.randn(24)):
        weight, x, other = torch.randn(24, 16), torch.randn(7, 16), torch.randn(7, 24)
        one = PackedLinear(weight, bias)
        plain = torch.nn.functional.linear(x, weight, bias)
        silu = torch.nn.functional.silu(plain)
        with torch.inference_mode():
            assert torch.allclose(one(x), plain, atol=1e-5)
            assert torch.allclose(one.silu(x), silu, atol=1e-5)
            assert torch.allclose(one.times(x, other), plain * other, atol=1e-5)
            assert torch.allclose(one.plus(x, other), plain + other, atol=1e-5)


# At 40 the sums of exponentials leave float32, and the careful way takes over.
@pytest.mark.parametrize("sharpness", [4.0, 40.0])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_decoding(
    family: str, sharpness: float, packed: bool, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model(family, AutoModelForCausalLM, tokenizer, sharpness)
    assert why_not(model) is None
    careful = []
    real = LeanStepper._softmax

    def watched(*given: Any) -> torch.Tensor:
        careful.append(1)
        return real(*given)

    monkeypatch.setattr(LeanStepper, "_softmax", watched)
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12], [4]]
    owner = torch.tensor([0, 0, 0, 1, 1, 2])
    torch.manual_seed(0)
    with torch.inference_mode():
        lean, plain = LeanStepper(Lean(model), 70), ModelStepper(model, 70)
        assert torch.allclose(lean.start(prompts, owner), plain.start(prompts, owner), atol=1e-5)
        for _ in range(70):  # past the first room of the cache
            tokens = torch.randint(2, 26, (6,))
            # Sharp attention turns rounding into differences of the same relative size.
            found, wanted = lean.step(tokens), plain.step(tokens)
            assert torch.allclose(found, wanted, atol=1e-5 * max(1.0, sharpness))
    assert bool(careful) == (sharpness == 40.0)


@pytest.mark.parametrize("sharpness", [4.0, 40.0])
@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_scoring(family: str, sharpness: float, packed: bool, way: str, tokenizer: Any) -> None:
    model = _model(family, AutoModelForSequenceClassification, tokenizer, sharpness)
    draw = random.Random(0)

    def ids(length: int) -> list[int]:
        return [draw.randrange(2, len(tokenizer)) for _ in range(length)]

    items = []
    for size in (1, 3, 40):
        prompt = ids(size)
        # Answers of one length, of all lengths, alone, and the same one twice.
        items += [Tokens(prompt, ids(70)) for _ in range(3)]
        items += [Tokens(prompt, ids(draw.randrange(1, 100))) for _ in range(6)]
        items.append(items[-1])
    items.append(Tokens(ids(5), ids(2)))
    reward = RewardModel(model, tokenizer, RewardCard("safety"))
    assert LeanScorer.covers(model)
    assert (use_for_scoring(model, reward._plain_scores) is not None) == (way == "fast")
    found = reward.score(items)
    for item, score in zip(items, found, strict=True):
        with torch.no_grad():
            [[wanted]] = model(input_ids=torch.tensor([item.ids])).logits.tolist()
        assert score == pytest.approx(wanted, abs=1e-5 * max(1.0, sharpness))
    order = draw.sample(range(len(items)), len(items))
    again = reward.score([items[n] for n in order])
    assert np.array_equal(again, found[order])


def test_what_lean_layers_do_not_cover(tokenizer: Any) -> None:
    model = _model("llama", AutoModelForSequenceClassification, tokenizer)
    assert not LeanScorer.covers(model.to(torch.bfloat16))
    model.config.hidden_act = "gelu"
    assert not Lean.folds(model.float())
    model.config.layer_types = ["sliding_attention"] * 3
    assert why_not(model) == "not all layers attend to everything"
