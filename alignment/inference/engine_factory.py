"""Builds an engine from the configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from alignment.config.compute import ComputeConfig
from alignment.config.generation import GenerationConfig
from alignment.config.sampling import SampleConfig
from alignment.errors import ConfigError
from alignment.inference.engine import TransformersEngine
from alignment.inference.types import Engine
from alignment.models.adapters import adapter_base, is_adapter
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.load import context_length, load_policy, load_tokenizer, resolve_device


def open_engine(
    model: Path, config: SampleConfig, compute: ComputeConfig
) -> tuple[Engine, ChatRenderer]:
    """The engine that `sample.engine` names, for the policy in `model`, and its renderer.

    Raises:
        ConfigError: vLLM is configured but not installed, or it cannot load the policy because
            that is an adapter.
    """
    if config.engine == "transformers":
        return transformers_engine(model, compute, config.generation)
    from transformers import AutoConfig

    from alignment.inference.vllm_engine import ServerEngine, VLLMEngine

    base = adapter_base(model) if is_adapter(model) else str(model)
    described = AutoConfig.from_pretrained(base, trust_remote_code=False)
    renderer = ChatRenderer(load_tokenizer(model), prompt_limit(described, config.generation))
    if config.url is not None:
        # The key is not a setting, because settings end up in manifests.
        key = os.environ.get("ALIGN_SERVER_KEY", "")
        return ServerEngine(config.url, renderer, key=key), renderer
    if is_adapter(model):
        raise ConfigError(
            "vLLM in this process needs a full checkpoint, but the policy is an adapter",
            remedy="align export it, serve that and set sample.engine: server with its url",
        )
    return VLLMEngine(model, renderer, compute.dtype), renderer


def transformers_engine(
    model: Path, compute: ComputeConfig, generation: GenerationConfig
) -> tuple[Engine, ChatRenderer]:
    """Our own loop over the policy in `model`, and a renderer that fits its context."""
    policy = load_policy(model, dtype=compute.dtype, device=resolve_device(compute.device))
    renderer = ChatRenderer(load_tokenizer(model), prompt_limit(policy.config, generation))
    return TransformersEngine(policy, renderer), renderer


def prompt_limit(
    model: Any, generation: GenerationConfig, *, section: str | None = None
) -> int | None:
    """Longest prompt, in tokens, that leaves room for the answer; None if nothing limits it.

    Args:
        model: the configuration of a transformers model.
        section: that `generation` belongs to, for the error.

    Raises:
        ConfigError: the answer alone fills the context.
    """
    context = context_length(model)
    if context is None:
        return generation.max_prompt_tokens
    room = context - generation.max_new_tokens
    if room < 1:
        raise ConfigError(
            f"answers of {generation.max_new_tokens} tokens leave no room for a prompt: "
            f"the model's context is {context}",
            where=".".join(filter(None, (section, "generation.max_new_tokens"))),
            remedy=f"set it well below {context}",
        )
    return min(room, generation.max_prompt_tokens or room)
