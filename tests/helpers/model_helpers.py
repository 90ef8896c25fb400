"""Tiny tokenizers and models of several families, made from nothing."""

from __future__ import annotations

import json
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
)

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% else %}{% set rest = messages %}{% set system = '' %}{% endif %}"
    "{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + (system if loop.index0 == 0 else '')"
    " + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# Moves the system message into the last question, as Mistral's does: history is rewritten.
MOVING = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] "
    "{% if loop.last and messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}\n\n"
    "{% endif %}{{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
# An empty reasoning block before each answer, gone from history, as Qwen3's.
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = {
    "transcript": None,
    "chatml": CHATML,
    "llama2": LLAMA2,
    "moving": MOVING,
    "thinking": THINKING,
}
TEXT = ["the cat sat on the mat. Human: Assistant: what is the colour of the hat? it is red"] * 3


def byte_level(special_tokens: list[str], vocabulary: int = 400) -> Tokenizer:
    """Byte-level BPE, like GPT-2's, with these special tokens first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=special_tokens,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return tokenizer


def bytes_tokenizer(template: str | None = None, vocabulary: int = 400) -> PreTrainedTokenizerFast:
    """Byte-level BPE with a chat template."""
    chatml = template in (CHATML, THINKING)
    bos, eos = ("<|im_start|>", "<|im_end|>") if chatml else ("<s>", "</s>")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=byte_level(["<pad>", bos, eos], vocabulary),
        pad_token="<pad>",
        bos_token=bos,
        eos_token=eos,
    )
    fast.chat_template = template
    return fast


def pieces_tokenizer(template: str | None = None) -> PreTrainedTokenizerFast:
    """SentencePiece-like: puts a space before every text, and has no pad token."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    everything = [f"<0x{value:02X}>" for value in range(256)]
    tokenizer.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=["<unk>", "<s>", "</s>", *everything],
            show_progress=False,
        ),
    )
    # The bytes came in as special tokens; in a real tokenizer they are ordinary ones.
    described = json.loads(tokenizer.to_str())
    described["added_tokens"] = [row for row in described["added_tokens"] if row["id"] < 3]
    tokenizer = Tokenizer.from_str(json.dumps(described))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    fast.chat_template = template
    return fast


def tiny_model(family: str, vocabulary: int = 400, seed: int = 0, **more: Any) -> Any:
    """A randomly initialised causal language model of a family."""
    ids: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    size = {"vocab_size": vocabulary, **ids, **more}
    wide: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 256,
    }
    torch.manual_seed(seed)
    configs: dict[str, Any] = {
        "llama": lambda: LlamaConfig(
            **wide, num_key_value_heads=2, tie_word_embeddings=True, **size
        ),
        "qwen2": lambda: Qwen2Config(**wide, num_key_value_heads=2, **size),
        "gpt_neox": lambda: GPTNeoXConfig(**wide, **size),
        "gpt2": lambda: GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=256, **size),
        "llama3": lambda: LlamaConfig(
            **wide,
            num_key_value_heads=2,
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 2.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 128,
            },
            **size,
        ),
        "qwen3": lambda: Qwen3Config(**wide, num_key_value_heads=2, head_dim=8, **size),
        "gemma2": lambda: Gemma2Config(
            **wide, num_key_value_heads=2, head_dim=8, sliding_window=64, **size
        ),
        "gemma3": lambda: Gemma3TextConfig(
            **wide, num_key_value_heads=2, head_dim=8, sliding_window=64, **size
        ),
        "mistral": lambda: MistralConfig(**wide, num_key_value_heads=2, sliding_window=64, **size),
        "opt": lambda: OPTConfig(
            hidden_size=32,
            ffn_dim=48,
            word_embed_proj_dim=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=256,
            **size,
        ),
        "phi": lambda: PhiConfig(**wide, num_key_value_heads=2, **size),
        "phi3": lambda: Phi3Config(**wide, num_key_value_heads=2, **size),
        "mixtral": lambda: MixtralConfig(
            **wide, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, **size
        ),
        "qwen2_moe": lambda: Qwen2MoeConfig(
            **wide,
            num_key_value_heads=2,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=24,
            shared_expert_intermediate_size=24,
            **size,
        ),
    }
    return AutoModelForCausalLM.from_config(configs[family]()).eval()


FAMILIES = ("llama", "qwen2", "gpt_neox", "gpt2")
