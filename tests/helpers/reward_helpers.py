"""Tiny random models and comparisons for the tests of this room."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from alignment.rewards.examples import Element, Pair
from alignment.rewards.heldout_scores import Measured

COMMON = {"vocab_size": 64, "num_labels": 1, "pad_token_id": 0, "eos_token_id": 1}
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**COMMON, **SMALL, num_key_value_heads=2),
    "qwen2": Qwen2Config(**COMMON, **SMALL, num_key_value_heads=2),
    "gpt_neox": GPTNeoXConfig(**COMMON, **SMALL),
    "gpt2": GPT2Config(**COMMON, n_embd=32, n_layer=2, n_head=4, n_positions=128),
    "mistral": MistralConfig(**COMMON, **SMALL, num_key_value_heads=2, sliding_window=64),
}


def tiny(kind: str = "llama", seed: int = 0) -> PreTrainedModel:
    """A random sequence classifier with one output, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # A copy: a test that gives its model a pad id must not give one to everybody's.
        return (
            AutoModelForSequenceClassification.from_config(deepcopy(CONFIGS[kind])).float().eval()
        )


def random_elements(count: int, seed: int = 0, answers: int = 2) -> list[Element]:
    """Elements with prompts of 5–20 tokens and answers of 2–15, each with labels."""
    generator = np.random.default_rng(seed)
    elements = []
    for _ in range(count):
        prompt = generator.integers(2, 64, size=generator.integers(5, 20))
        sequences = []
        for _ in range(answers):
            answer = generator.integers(2, 64, size=generator.integers(2, 15))
            sequences.append((*prompt.tolist(), *answer.tolist(), 1))
        pairs = tuple(
            Pair(i, j, float(generator.integers(0, 2)))
            for i in range(answers)
            for j in range(i + 1, answers)
        )
        labels = tuple(float(x) for x in generator.integers(0, 2, size=answers))
        elements.append(Element(tuple(sequences), pairs, labels))
    return elements


VOCABULARY = (
    "<pad> <eos> human assistant what is the sky sea fire blue green red wet hot good bad "
    "answer maybe no yes please help me now stop i cannot do that tell name a thing of and "
    "one two three four five six seven eight nine ten : ?"
)
WORDS = VOCABULARY.split()


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over WORDS without a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: n for n, word in enumerate([*WORDS, "<unk>"])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )


def save_tiny_policy(directory: Path, seed: int = 0) -> Path:
    """A random causal Llama with its tokenizer, as a stage leaves it: `directory/model`."""
    from transformers import LlamaForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**COMMON, **SMALL, num_key_value_heads=2))
    model.save_pretrained(directory / "model")
    word_tokenizer().save_pretrained(directory / "model")
    return directory


def scored(right: np.ndarray) -> Measured:
    """Comparisons that are ranked right where `right` is true; alternately clear and not."""
    n = len(right)
    zeros = np.zeros(n)
    return Measured(
        chosen=np.where(right, 1.0, -1.0),
        rejected=zeros,
        chosen_safe=zeros,
        rejected_safe=zeros,
        chosen_tokens=zeros.astype(int),
        rejected_tokens=zeros.astype(int),
        strength=np.array(["significantly", "negligibly"] * (n // 2), dtype=object),
        domain=np.array(["helpfulness"] * n, dtype=object),
        batch=np.array(["b"] * n, dtype=object),
        bins=np.array([""] * n, dtype=object),
        opening=np.arange(n),
    )
