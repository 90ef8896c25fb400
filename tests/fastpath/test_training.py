"""The hand-written forward and backward of small Llamas beside transformers' own."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from alignment.fastpath import training
from alignment.fastpath.feature_major import product_of
from alignment.fastpath.groups import of_rows
from alignment.fastpath.training import LeanBackbone, TokenLogprobs, why_not
from alignment.models.row_layout import Row


def model(heads: int = 4, kv: int = 2, layers: int = 3) -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=44,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        max_position_embeddings=128,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    found = LlamaForCausalLM(config).eval()
    for name, parameter in found.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return found


def batch(length: int = 11) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Three padded rows, and some places in them."""
    ids = torch.randint(1, 50, (3, length), generator=torch.Generator().manual_seed(0))
    row = torch.tensor([0, 0, 1, 2, 2, 2])
    column = torch.tensor([3, 9, 5, 0, length // 2, length - 1])
    return ids, row, column


# 100 tokens: three blocks of queries, of different sizes.
@pytest.mark.parametrize(
    ("heads", "kv", "length"), [(4, 4, 11), (4, 2, 11), (4, 1, 11), (4, 2, 100)]
)
def test_values_and_every_gradient_equal_transformers(heads: int, kv: int, length: int) -> None:
    lean, plain = model(heads, kv), model(heads, kv).double()
    ids, row, column = batch(length)
    assert why_not(lean.model) is None
    tokens, weights = torch.tensor([4, 1, 0, 9, 49, 7]), torch.linspace(-1.0, 2.0, 6)
    hidden = LeanBackbone(lean.model).hidden(ids, row * ids.shape[1] + column)
    expected = plain.model(input_ids=ids).last_hidden_state[row, column]
    torch.testing.assert_close(hidden.double(), expected, atol=1e-5, rtol=1e-5)
    found = TokenLogprobs.apply(hidden, lean.lm_head.weight, tokens, 0.7)
    logs = torch.log_softmax(plain.lm_head(expected) / 0.7, -1)
    wanted = logs.gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(found.double(), wanted, atol=2e-5, rtol=1e-5)
    (found * weights).sum().backward()
    (wanted * weights).sum().backward()
    for (name, one), other in zip(lean.named_parameters(), plain.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        distance = (one.grad.double() - other.grad).norm() / other.grad.norm()
        assert float(distance) < 1e-4, name


def test_padding_changes_nothing() -> None:
    lean = LeanBackbone(model().model)
    ids, row, column = batch()
    wide = torch.cat([ids, torch.full((3, 4), 7)], 1)
    with torch.no_grad():
        left = lean.hidden(ids, row * 11 + column)
        right = lean.hidden(wide, row * 15 + column)
    torch.testing.assert_close(left, right, atol=1e-5, rtol=1e-5)


def test_rows_as_long_as_may_be_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the longest tail and the longest prefix of a group are together."""
    monkeypatch.setattr(training, "LONGEST", 50)
    whole = model()
    rows = [
        Row(tuple(range(1, 41)), (tuple(range(9)), tuple(range(10))), (0, 1)),
        Row((1,), (tuple(range(12)), tuple(range(11))), (2, 3)),
    ]
    layout = of_rows(rows, 8)
    with torch.no_grad():
        found = LeanBackbone(whole.model).hidden_of(layout, layout.last)
        expected = [
            whole.model(input_ids=torch.tensor([row.prefix + tail])).last_hidden_state[0, -1]
            for row in rows
            for tail in row.tails
        ]
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)
    longer = of_rows([Row((), ((*range(49), 1, 1),), (0,))], 8)
    assert LeanBackbone(whole.model).hidden_of(longer, longer.last) is None


def test_changed_weights_are_seen() -> None:
    whole = model()
    lean = LeanBackbone(whole.model)
    ids, row, column = batch()
    places = row * 11 + column
    with torch.no_grad():
        before = lean.hidden(ids, places)
        whole.model.layers[1].mlp.up_proj.weight.mul_(1.5)
        after = lean.hidden(ids, places)
        expected = whole.model(input_ids=ids).last_hidden_state[row, column]
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, expected, atol=1e-4, rtol=1e-4)


def test_scores_out_of_range_are_shifted() -> None:
    """Beyond what exp2 can hold in float32, the largest score is taken off first."""
    lean = model()
    with torch.no_grad():
        lean.model.layers[0].self_attn.q_proj.weight.mul_(1e3)
    plain = copy.deepcopy(lean).double()
    ids, row, column = batch()
    hidden = LeanBackbone(lean.model).hidden(ids, row * 11 + column)
    expected = plain.model(input_ids=ids).last_hidden_state[row, column]
    torch.testing.assert_close(hidden.double(), expected, atol=1e-4, rtol=1e-4)
    hidden.square().sum().backward()
    expected.square().sum().backward()
    one, other = lean.model.layers[0].mlp.up_proj.weight, plain.model.layers[0].mlp.up_proj.weight
    torch.testing.assert_close(one.grad.double(), other.grad, atol=1e-2, rtol=1e-3)


def test_logits_out_of_range_are_normalised_all_the_same() -> None:
    """Beyond what exp can hold in float32, the largest logit is taken off first."""
    hidden = torch.randn(3, 8, generator=torch.Generator().manual_seed(0)).mul_(100.0)
    head = torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    tokens, weights = torch.tensor([0, 7, 19]), torch.tensor([1.0, -2.0, 0.5])
    both = [(hidden.clone().requires_grad_(), head.clone().requires_grad_()) for _ in range(2)]
    assert float((hidden @ head.T).max()) > 100.0
    found = TokenLogprobs.apply(*both[0], tokens, 1.0)
    logs = torch.log_softmax(both[1][0] @ both[1][1].T, -1)
    wanted = logs.gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-3)
    (found * weights).sum().backward()
    (wanted * weights).sum().backward()
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-3)


def test_other_models_are_left_to_transformers() -> None:
    qwen = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=20,
            hidden_size=16,
            intermediate_size=20,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    )
    assert why_not(qwen.model) == "biases in its projections"
    assert why_not(copy.deepcopy(model()).to(torch.bfloat16).model) == "not in float32 on a CPU"


def test_products() -> None:
    left, right = torch.randn(7, 5), torch.randn(9, 5)
    torch.testing.assert_close(product_of(left, right.t()), left @ right.t())
    torch.testing.assert_close(product_of(left.t().contiguous().t(), right.t()), left @ right.t())
