"""The plain reference, transformers and every fast pass say the same."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from alignment.fastpath import reference
from alignment.fastpath.decoding import LeanStepper
from alignment.fastpath.layers import Lean
from alignment.fastpath.scoring import LeanScorer
from alignment.fastpath.training import LeanBackbone
from alignment.models.row_layout import Row
from alignment.models.stepper import ModelStepper

IDS = torch.randint(0, 60, (2, 17), generator=torch.Generator().manual_seed(4))


def llama(kind: type = LlamaForCausalLM) -> LlamaForCausalLM:
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        num_labels=1,
        pad_token_id=0,
        initializer_range=0.2,
    )
    model = kind(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def test_transformers() -> None:
    model = llama()
    with torch.no_grad():
        theirs = model.model(input_ids=IDS).last_hidden_state
        ours = torch.stack([reference.hidden(model, ids) for ids in IDS])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_training_and_its_gradients() -> None:
    model = llama()
    body = model.model
    parameters = list(body.parameters())
    weights = torch.linspace(-1.0, 1.0, 2 * 17 * 32).view(34, 32)
    ours = torch.cat([reference.hidden(model, ids) for ids in IDS])
    fast = LeanBackbone(body).hidden(IDS, torch.arange(34))
    plain = body(input_ids=IDS).last_hidden_state.flatten(0, 1)
    assert fast is not None
    torch.testing.assert_close(fast, ours, atol=1e-5, rtol=1e-5)
    expected = torch.autograd.grad((ours * weights).sum(), parameters)
    for other in (fast, plain):
        found = torch.autograd.grad((other * weights).sum(), parameters)
        for one, wanted in zip(found, expected, strict=True):
            assert float((one - wanted).norm() / wanted.norm()) < 1e-5


@pytest.mark.parametrize("stepper", ["fast", "plain"])
def test_decoding(stepper: str) -> None:
    model = llama()
    steps = 12
    with torch.inference_mode():
        one = LeanStepper(Lean(model), steps) if stepper == "fast" else ModelStepper(model, steps)
        found = one.start([IDS[0, :5].tolist(), IDS[1, :5].tolist()], torch.tensor([0, 1]))
        for place in range(5, 17):
            wanted = [model.lm_head(reference.hidden(model, ids[:place])[-1]) for ids in IDS]
            torch.testing.assert_close(found, torch.stack(wanted), atol=1e-5, rtol=1e-5)
            found = one.step(IDS[:, place])


def test_scoring() -> None:
    model = llama(LlamaForSequenceClassification)
    first, second = (tuple(ids.tolist()) for ids in IDS)
    rows = [Row(first[:6], (first[6:], second[:4]), (0, 1)), Row((), (second,), (2,))]
    with torch.inference_mode():
        scores, answers = LeanScorer(model, 64).score(rows)
        for score, answer in zip(scores, answers, strict=True):
            whole = [first, first[:6] + second[:4], second][answer]
            hidden = reference.hidden(model, torch.tensor(whole))[-1]
            torch.testing.assert_close(score, model.score(hidden)[0], atol=1e-5, rtol=1e-5)
