"""Thirteen small models in the shapes of well-known ones, each with a template as theirs."""

from __future__ import annotations

from typing import Any

from chat_templates import family_tokenizer
from model_helpers import THINKING, bytes_tokenizer, tiny_model

WITH_TEMPLATE = {
    "gpt2": None,  # no template: a transcript
    "gpt_neox": None,
    "opt": None,
    "phi": None,
    "qwen2": "chatml",
    "qwen3": "thinking",
    "gemma2": "gemma",
    "gemma3": "gemma",
    "mistral": "mistral",
    "phi3": "phi3",
    "llama3": "llama3",
    "mixtral": "mistral",
    "qwen2_moe": "chatml",
}
"""Model → its chat template, a name in `chat_templates.FAMILIES`."""


def family(name: str) -> tuple[Any, Any]:
    """A model and its tokenizer."""
    template = WITH_TEMPLATE[name]
    if template is None:
        tokenizer: Any = bytes_tokenizer()
    elif template == "thinking":
        tokenizer = bytes_tokenizer(THINKING)
    else:
        tokenizer = family_tokenizer(template)
    padded = len(tokenizer) + 8 if name == "gpt_neox" else len(tokenizer)
    ids = {
        key: getattr(tokenizer, key)
        for key in ("bos_token_id", "eos_token_id", "pad_token_id")
        if getattr(tokenizer, key) is not None
    }
    return tiny_model(name, padded, **ids), tokenizer
