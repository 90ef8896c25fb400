"""The machine's limit, with numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from alignment.bench import limit
from alignment.bench.limit import Dimensions, Distinct, answered, distinct
from alignment.bench.sample import run

TINY = Dimensions({(2, 2): 3, (3, 2): 2, (2, 3): 1}, attention=2, head=10)
"""One layer, width 2: three (2, 2), gate and up (3, 2), down (2, 3): 30 parameters."""


def test_the_dimensions_of_a_model() -> None:
    config = LlamaConfig(
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=20,
    )
    found = limit.dimensions(LlamaForCausalLM(config))
    # A layer: queries and output (8, 8), keys and values (4, 8), gate and up (12, 8), down (8, 12).
    assert found.matrices == {(8, 8): 6, (4, 8): 6, (12, 8): 6, (8, 12): 3}
    assert found.parameters == 3 * (2 * 64 + 2 * 32 + 3 * 96)
    assert (found.attention, found.head) == (3 * 8, 8 * 20)


def test_distinct_tokens() -> None:
    # 1 2 3 and 1 2 4 share two: tokens at places 1, 2, 3 and 3.
    assert distinct([(1, 2, 3), (1, 2, 4)]) == Distinct(4, 1 + 2 + 3 + 3)
    assert distinct([(1, 2), (1, 2), (1, 2, 3)]) == Distinct(3, 6)
    assert distinct([(1, 2), (2, 1)]) == Distinct(4, 6)  # what stands before counts
    assert distinct([]) == Distinct(0, 0)


def test_operations() -> None:
    assert TINY.parameters == 30
    work = Distinct(tokens=4, seen=9)
    # 2 · 30 · 4 + 4 · 2 · 9
    assert limit.forward(TINY, work) == 240 + 72
    # and 2 · 10 at each of 5 places
    assert limit.forward(TINY, work, 5) == 240 + 72 + 100
    assert limit.training(TINY, work, 5) == 3 * (240 + 72 + 100)
    # no gradient of frozen weights; attention has none, and takes its two products for each
    assert limit.training(TINY, work, 5, frozen=True) == 2 * (240 + 100) + 3 * 72


def test_answers_of_one_prompt() -> None:
    work = answered([(1, 2), (1, 2)], [(3, 4), (5, 6)])
    # Read while drawing: 1 2 3 and 1 2 5; logits behind 2 (once), 3 and 5.
    assert work.fed == Distinct(4, 1 + 2 + 3 + 3)
    assert work.whole == Distinct(6, 1 + 2 + 2 * (3 + 4))
    assert work.draws == 3


def test_the_share_is_that_of_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limit, "peak", lambda *_: 2e9)
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            vocab_size=8,
        )
    )
    found = limit.beside(model.bfloat16(), operations=1e9, seconds=4.0)
    assert found == {"dtype": "bfloat16", "gflop": 1.0, "peak_gflops": 2.0, "of_limit": 0.125}


def test_the_speed_of_products_is_near_that_of_one() -> None:
    sizes = Dimensions({(256, 256): 2}, attention=0, head=0)
    speed = limit.peak(sizes, torch.float32, torch.device("cpu"))
    assert 1e8 < speed < 1e14


def test_what_sampling_needs(stories: Path) -> None:
    line = run(model=stories, prompts=1, k=2, max_new_tokens=1, device="cpu")
    # One prompt of n tokens and one token of each of two answers: drawing reads n tokens once and
    # asks for logits once, the two reward models read n + 2 (n + 1 if both are the same).
    from alignment.bench.ppo import openings
    from alignment.models.load import load_policy, load_tokenizer

    n = len(openings(load_tokenizer(stories), 1)[0])
    sizes = limit.dimensions(load_policy(stories))
    drawn = limit.forward(sizes, Distinct(n, n * (n + 1) // 2), 1)
    either = [
        drawn + 2 * limit.forward(sizes, Distinct(n + m, n * (n + 1) // 2 + m * (n + 1)))
        for m in (1, 2)
    ]
    assert line["gflop"] in [round(operations / 1e9, 3) for operations in either]
