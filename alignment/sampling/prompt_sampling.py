"""The choice of prompts that a version samples for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alignment.errors import ConfigError
from alignment.preferences.prompts import Prompt
from alignment.utils.seeds import derive_seed


def without_categories(pool: Sequence[Prompt], categories: Sequence[str]) -> list[Prompt]:
    """The prompts of the pool that are in none of `categories`.

    Raises:
        ConfigError: the pool has no such category, or no prompt remains.
    """
    categories_of_pool = sorted({prompt.category for prompt in pool})
    unknown = sorted(set(categories) - set(categories_of_pool))
    if unknown:
        raise ConfigError(
            f"sample.skip_categories names {', '.join(unknown)}, which no prompt of the pool has",
            remedy=f"its categories are {', '.join(categories_of_pool)}",
        )
    remaining = [prompt for prompt in pool if prompt.category not in categories]
    if not remaining:
        raise ConfigError("sample.skip_categories leaves no prompt to sample for")
    return remaining


def draw_prompts(
    pool: Sequence[Prompt], count: int, seed: int, used: Mapping[str, int] | None = None
) -> list[Prompt]:
    """A stratified draw of `count` prompts: domains and categories keep their shares of the pool.

    Shares are rounded by largest remainder. Within a category the order is a hash of seed and id,
    so the draw does not depend on the order of the pool.

    Args:
        used: id → how many versions have sampled for a prompt. Within a category those that the
            fewest have come first: fresh ones, and where these run out repeats.
    """
    times = used or {}
    if count >= len(pool):
        return _shuffled(pool, seed)
    groups: dict[tuple[str, str, bool], list[Prompt]] = {}
    for prompt in pool:
        groups.setdefault((prompt.domain, prompt.category, prompt.borderline), []).append(prompt)
    names = sorted(groups)
    exact = {name: count * len(groups[name]) / len(pool) for name in names}
    sizes = {name: int(exact[name]) for name in names}
    by_remainder = sorted(names, key=lambda name: (sizes[name] - exact[name], name))
    for name in by_remainder[: count - sum(sizes.values())]:
        sizes[name] += 1
    drawn = [
        prompt
        for name in names
        for prompt in sorted(_shuffled(groups[name], seed), key=lambda p: times.get(p.id, 0))[
            : sizes[name]
        ]
    ]
    return _shuffled(drawn, seed)


def _shuffled(prompts: Sequence[Prompt], seed: int) -> list[Prompt]:
    return sorted(prompts, key=lambda prompt: (derive_seed(seed, prompt.id), prompt.id))
