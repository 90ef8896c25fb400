"""Builds an engine from the configuration."""

from __future__ import annotations

import os
from pathlib import Path

from alignment.config.compute import ComputeConfig
from alignment.config.generation import GenerationConfig
from alignment.config.sampling import SampleConfig
from alignment.errors import ConfigError
from alignment.inference.engine import TransformersEngine
from alignment.inference.types import Engine
from alignment.models.adapters import is_adapter
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.limits import prompt_limit
from alignment.models.load import (
    context_length,
    context_of,
    load_policy,
    load_tokenizer,
    resolve_device,
)


def open_engine(
    model: Path, config: SampleConfig, compute: ComputeConfig, beside: int = 0
) -> tuple[Engine, ChatRenderer]:
    """The engine that `sample.engine` names, for the policy in `model`, and its renderer.

    Args:
        beside: bytes of memory on the same device that must stay free for other models.

    Raises:
        ConfigError: vLLM is configured but not installed, or it cannot load the policy because
            that is an adapter.
    """
    if config.engine == "transformers":
        return transformers_engine(model, compute, config.generation)
    from alignment.inference.vllm_engine import ServerEngine, VLLMEngine

    limit = prompt_limit(context_of(model), config.generation)
    renderer = ChatRenderer(load_tokenizer(model), limit)
    if config.url is not None:
        # The key is not a setting, because settings end up in manifests.
        key = os.environ.get("ALIGN_SERVER_KEY", "")
        return ServerEngine(config.url, renderer, key=key), renderer
    if is_adapter(model):
        raise ConfigError(
            "vLLM in this process needs a full checkpoint, but the policy is an adapter",
            remedy="align export it, serve that and set sample.engine: server with its url",
        )
    return VLLMEngine(model, renderer, compute.dtype, beside), renderer


def transformers_engine(
    model: Path, compute: ComputeConfig, generation: GenerationConfig
) -> tuple[Engine, ChatRenderer]:
    """Our own loop over the policy in `model`, and a renderer that fits its context."""
    policy = load_policy(model, dtype=compute.dtype, device=resolve_device(compute.device))
    limit = prompt_limit(context_length(policy.config), generation)
    renderer = ChatRenderer(load_tokenizer(model), limit)
    return TransformersEngine(policy, renderer), renderer
