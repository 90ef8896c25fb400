"""Which prompts of the pool a version uses."""

from __future__ import annotations

from collections.abc import Sequence

from alignment.errors import ConfigError
from alignment.preferences.prompts import Prompt
from alignment.utils.seeds import derive_seed


def without(pool: Sequence[Prompt], categories: Sequence[str]) -> list[Prompt]:
    """The pool less some categories.

    Raises:
        ConfigError: the pool has no such category, or nothing else.
    """
    known = sorted({prompt.category for prompt in pool})
    unknown = sorted(set(categories) - set(known))
    if unknown:
        raise ConfigError(
            f"sample.skip_categories names {', '.join(unknown)}, which no prompt of the pool has",
            remedy=f"its categories are {', '.join(known)}",
        )
    left = [prompt for prompt in pool if prompt.category not in categories]
    if not left:
        raise ConfigError("sample.skip_categories leaves no prompt to sample for")
    return left


def draw_prompts(pool: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    """`count` prompts in which domains and categories have the pool's shares.

    Shares are rounded by largest remainder; within a category the order is a hash of seed and id,
    so the draw depends on neither the order of the pool nor on what else is in it.
    """
    if count >= len(pool):
        return _shuffled(pool, seed)
    groups: dict[tuple[str, str, bool], list[Prompt]] = {}
    for prompt in pool:
        groups.setdefault((prompt.domain, prompt.category, prompt.borderline), []).append(prompt)
    names = sorted(groups)
    wanted = {name: count * len(groups[name]) / len(pool) for name in names}
    sizes = {name: int(wanted[name]) for name in names}
    by_remainder = sorted(names, key=lambda name: (sizes[name] - wanted[name], name))
    for name in by_remainder[: count - sum(sizes.values())]:
        sizes[name] += 1
    drawn = [prompt for name in names for prompt in _shuffled(groups[name], seed)[: sizes[name]]]
    return _shuffled(drawn, seed)


def _shuffled(prompts: Sequence[Prompt], seed: int) -> list[Prompt]:
    return sorted(prompts, key=lambda prompt: (derive_seed(seed, prompt.id), prompt.id))
