"""The shared-prefix layout: masks against brute force, scores and gradients against plain rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from reward_helpers import CONFIGS, random_elements, tiny

from alignment.errors import ConfigError
from alignment.fastpath.packed_attention import BlockAttention, pack, plan_of
from alignment.models.row_layout import Costs, Row, assemble, common_prefix, rows_of
from alignment.rewards.batches import Batcher, choose_style, forward
from alignment.rewards.train import backward, micro_batches

ALWAYS = Costs(linear=1.0, attention=0.0)


def test_common_prefix_leaves_every_answer_a_token() -> None:
    assert common_prefix([(1, 2, 3), (1, 2, 4)]) == 2
    assert common_prefix([(1, 2), (1, 2, 4)]) == 1
    assert common_prefix([(5,), (5, 6)]) == 0
    assert common_prefix([(1, 2, 3), (1, 2, 3)]) == 2


def test_mask_equals_brute_force() -> None:
    row = Row((7, 8, 9), ((1, 2), (3, 4, 5)), (0, 1))
    other = Row((), ((6, 6),), (2,))
    inputs = assemble([row, other], pad=0)
    assert inputs.ids.tolist() == [[7, 8, 9, 1, 2, 3, 4, 5], [6, 6, 0, 0, 0, 0, 0, 0]]
    assert inputs.positions is not None
    assert inputs.positions[0].tolist() == [0, 1, 2, 3, 4, 3, 4, 5]
    assert inputs.mask is not None
    part = [0, 0, 0, 1, 1, 2, 2, 2]
    for query in range(8):
        for key in range(8):
            seen = key <= query and (part[key] == 0 or part[key] == part[query])
            assert (inputs.mask[0, 0, query, key] == 0) == seen
    assert list(zip(inputs.row.tolist(), inputs.column.tolist(), strict=True)) == [
        (0, 4),
        (0, 7),
        (1, 1),
    ]


def test_rows_are_shared_only_where_it_pays() -> None:
    prompt = tuple(range(2, 42))
    answers = [(*prompt, 50 + n, 1) for n in range(4)]
    (row,) = rows_of(answers, range(4), ALWAYS)
    assert row.prefix == prompt
    assert len(row) == 40 + 8
    assert len(rows_of(answers, range(4), None)) == 4
    # Without a common beginning there is nothing to share.
    apart = [(n, 2, 3, 4) for n in range(4)]
    assert len(rows_of(apart, range(4), Costs(1.0, 1.0))) == 4
    # Long answers to a short prompt: one row of all would be all attention.
    long = [(5, *range(100 * n, 100 * n + 60)) for n in range(1, 5)]
    assert len(rows_of(long, range(4), Costs(1.0, 1.0))) == 4


LEAN = ("llama",)
"""Architectures that the grouped layout covers."""


@pytest.mark.parametrize(
    ("kind", "style"),
    [(kind, style) for kind in sorted(CONFIGS) for style in ("packed", "rows")]
    + [(kind, "grouped") for kind in LEAN],
)
def test_sharing_equals_plain_rows(kind: str, style: str) -> None:
    """Loss within 1e-5 and gradients within 1e-4 for pairs and for rankings of four."""
    for answers in (2, 4):
        elements = random_elements(6, seed=answers, answers=answers)
        results = []
        for name in (style, "plain"):
            model = tiny(kind)
            batcher = Batcher(model, pad=0, tokens_per_batch=150, max_length=64, style=name)
            if name == "rows":
                batcher.costs = ALWAYS
                assert all(i.mask is not None for _, i in micro_batches(batcher, elements))
            figures = backward(model, elements, batcher, auxiliary_weight=0.5)
            results.append((figures, {n: p.grad for n, p in model.named_parameters()}))
        (shared, left), (plain, right) = results
        assert shared.loss == pytest.approx(plain.loss, abs=1e-5)
        for name, gradient in left.items():
            if gradient is not None:
                torch.testing.assert_close(gradient, right[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_scores_are_those_of_transformers(kind: str) -> None:
    model = tiny(kind)
    sequences = random_elements(1, seed=3, answers=3)[0].sequences
    with torch.no_grad():
        theirs = [model(torch.tensor([ids])).logits.item() for ids in sequences]
        for style in ("packed", "rows", "plain", *(["grouped"] if kind in LEAN else [])):
            batcher = Batcher(model, pad=0, tokens_per_batch=500, max_length=64, style=style)
            batcher.costs = ALWAYS if style == "rows" else None
            rows = batcher.rows(sequences, range(3))
            assert len(rows) == (3 if style == "plain" else 1)
            with batcher.running():
                ours = forward(model, batcher.inputs(rows))
            assert ours.tolist() == pytest.approx(theirs, abs=1e-5)


def test_the_fastest_sound_layout_is_chosen(fast: str) -> None:
    for kind in CONFIGS:
        lean = "grouped" if kind in LEAN else "packed"
        assert choose_style(tiny(kind), 64).name == lean
        assert choose_style(tiny(kind), 64, grouped=False).name == "packed"
    assert choose_style(tiny(LEAN[0]), 600).name == "packed"  # longer than the lean pass takes


def test_what_the_lean_pass_cannot_do_is_left_to_others(fast: str) -> None:
    """It computes in float32, keeps all activations, and knows no adapters."""

    def chosen(model: torch.nn.Module, **how: object) -> str:
        batcher = Batcher(model, pad=0, tokens_per_batch=150, max_length=64, **how)  # type: ignore[arg-type]
        return batcher.style.name

    assert chosen(tiny(LEAN[0])) == "grouped"
    assert chosen(tiny(LEAN[0]), amp=torch.bfloat16) == "packed"
    assert chosen(tiny(LEAN[0]), recompute=True) == "packed"
    assert chosen(tiny(LEAN[0]).to(torch.bfloat16)) != "grouped"
    adapted = get_peft_model(tiny(LEAN[0]), LoraConfig(r=2, target_modules=["q_proj"]))
    assert chosen(adapted.base_model.model) != "grouped"


def test_plan_equals_brute_force() -> None:
    """Every query of every block sees what the shared-prefix rule says, also over 64 tokens."""
    rows = [
        Row(tuple(range(150)), (tuple(range(70)), tuple(range(3))), (0, 1)),
        Row((), (tuple(range(5)),), (2,)),
    ]
    plan = plan_of(rows)
    expected = {}
    first = 0
    for row in rows:
        parts = [0] * len(row.prefix)
        for n, tail in enumerate(row.tails, start=1):
            parts += [n] * len(tail)
        for query, part in enumerate(parts):
            keys = [k for k in range(query + 1) if parts[k] in (0, part)]
            expected[first + query] = [first + key for key in keys]
        first += len(parts)
    assert plan.tokens == first
    numbers = torch.arange(first)
    for blocks in (plan.all, plan.scored):
        for block in blocks:
            keys = block.keys(numbers).tolist()
            for place, query in enumerate(range(block.start, block.end)):
                later = block.end - block.start - 1 - place
                assert keys[: len(keys) - later] == expected[query]
    assert sorted(q for b in plan.all for q in range(b.start, b.end)) == list(range(first))
    assert [block.start for block in plan.scored] == pack(rows).column.tolist()


def test_block_attention_gradient() -> None:
    """Against finite differences, with two query heads to each key head."""
    rows = [Row((1, 2, 3), ((4, 5), (6,)), (0, 1)), Row((), ((7, 8),), (2,))]
    plan = plan_of(rows)
    torch.manual_seed(0)
    sizes = [(1, heads, plan.tokens, 4) for heads in (4, 2, 2)]
    tensors = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]
    for blocks in (plan.all, plan.scored):

        def found(*inputs: torch.Tensor, blocks: object = blocks) -> torch.Tensor:
            return BlockAttention.apply(*inputs, blocks, 0.5)

        assert torch.autograd.gradcheck(found, tensors)


def test_loss_equals_the_mean_of_pair_losses_whatever_the_pieces() -> None:
    model = tiny()
    elements = random_elements(7, seed=5)
    losses = []
    for tokens in (64, 200, 10_000):
        batcher = Batcher(model, pad=0, tokens_per_batch=tokens, max_length=64)
        losses.append(backward(model, elements, batcher).loss)
    by_hand = 0.0
    with torch.no_grad():
        for element in elements:
            scores = [model(torch.tensor([ids])).logits.item() for ids in element.sequences]
            gap = scores[0] - scores[1] - element.pairs[0].margin
            by_hand += np.log1p(np.exp(-gap)) / len(elements)
    assert losses == pytest.approx([by_hand] * 3, abs=1e-6)


def test_window_narrower_than_the_data_is_refused() -> None:
    style = choose_style(tiny("mistral"), 100)
    assert style.name == "plain"
    assert "sliding_window" in str(style.refusal)


def _gpt_neo() -> torch.nn.Module:
    from transformers import GPTNeoConfig, GPTNeoForSequenceClassification

    torch.manual_seed(0)
    config = GPTNeoConfig(
        vocab_size=64,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=96,
        max_position_embeddings=512,
        num_labels=1,
        pad_token_id=0,
    )
    return GPTNeoForSequenceClassification(config).eval()


@pytest.mark.parametrize("length", [400, 64])
def test_a_window_over_columns_is_refused(length: int) -> None:
    """Answers shorter than the window share rows that are longer."""
    style = choose_style(_gpt_neo(), length)
    assert style.name == "plain"
    assert "window_size is 96" in str(style.refusal)


def test_the_trial_at_full_length_finds_a_window_that_no_config_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("alignment.rewards.batches._narrow_window", lambda *_: None)
    style = choose_style(_gpt_neo(), 400)
    assert style.name == "plain"
    assert "other scores" in str(style.refusal)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_positions_that_depend_on_the_longest_row_are_refused(kind: str) -> None:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    rope = {"rope_type": kind, "rope_theta": 1e4, "factor": 4.0}
    if kind == "longrope":
        rope |= {"long_factor": [2.0] * 4, "short_factor": [1.0] * 4}
        rope |= {"original_max_position_embeddings": 64}
    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    config = LlamaConfig(
        **sizes,
        num_attention_heads=4,
        max_position_embeddings=64 if kind == "dynamic" else 256,
        rope_parameters=rope,
        num_labels=1,
        pad_token_id=0,
    )
    model = LlamaForSequenceClassification(config).eval()
    assert choose_style(model, 64).name != "plain"
    with pytest.raises(ConfigError, match=f"with {kind} RoPE beyond 64 tokens"):
        choose_style(model, 65)


def test_architecture_that_builds_positions_from_the_mask_is_refused() -> None:
    from transformers import BloomConfig, BloomForSequenceClassification

    torch.manual_seed(0)
    bloom = BloomForSequenceClassification(
        BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4, num_labels=1)
    ).eval()
    style = choose_style(bloom, 64)
    assert style.name == "plain"
    assert "Bloom" in str(style.refusal)


def test_attention_is_the_models_own_again_afterwards(fast: str) -> None:
    model = tiny()
    before = model.config._attn_implementation
    batcher = Batcher(model, pad=0, tokens_per_batch=150, max_length=64, style="packed")
    with batcher.running():
        assert model.config._attn_implementation != before
    assert model.config._attn_implementation == before
