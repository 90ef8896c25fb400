"""From configuration to an engine."""

from __future__ import annotations

from pathlib import Path

from alignment.config.compute import ComputeConfig
from alignment.models.chat import ChatRenderer
from alignment.models.load import load_policy, load_tokenizer, resolve_device
from alignment.sampling.engine import TransformersEngine
from alignment.sampling.settings import Engine


def transformers_engine(
    model: Path, compute: ComputeConfig, max_new_tokens: int, max_prompt_tokens: int | None = None
) -> tuple[Engine, ChatRenderer]:
    """Our own loop over the policy in `model`, and the renderer that fits its context.

    Args:
        max_prompt_tokens: longest prompt; what `max_new_tokens` leaves of the context if unset.
    """
    policy = load_policy(model, dtype=compute.dtype, device=resolve_device(compute.device))
    context = getattr(policy.config, "max_position_embeddings", None)
    renderer = ChatRenderer(
        load_tokenizer(model), prompt_limit(context, max_new_tokens, max_prompt_tokens)
    )
    return TransformersEngine(policy, renderer), renderer


def prompt_limit(context: int | None, max_new_tokens: int, wanted: int | None) -> int | None:
    """Longest prompt that leaves room for the answer; at least one token."""
    if context is None:
        return wanted
    room = max(1, context - max_new_tokens)
    return room if wanted is None else min(room, wanted)
