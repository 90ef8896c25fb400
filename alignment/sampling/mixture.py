"""Which prompts of the pool a version uses."""

from __future__ import annotations

from collections.abc import Sequence

from alignment.preferences.prompts import Prompt
from alignment.seeds import derive_seed


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
