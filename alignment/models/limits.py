"""How long a prompt may be: one rule for all stages, and for the check before the first."""

from __future__ import annotations

from alignment.config.generation import GenerationConfig
from alignment.errors import ConfigError


def prompt_limit(
    context: int | None, generation: GenerationConfig, *, section: str | None = None
) -> int | None:
    """Longest prompt, in tokens, that leaves room for the answer; None if nothing limits it.

    Args:
        context: most tokens that the model takes; None if it does not say.
        section: that `generation` belongs to, for the error.

    Raises:
        ConfigError: the answer alone fills the context.
    """
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
