"""A seed for every sample, derived from its prompt's name."""

from __future__ import annotations

from collections.abc import Sequence

from alignment.utils.seeds import derive_seed


def sample_seeds(seed: int, prompt_ids: Sequence[str], k: int) -> list[list[int]]:
    """A seed for each (prompt id, k); independent of each other and of the order of prompts."""
    return [[derive_seed(seed, name, index) for index in range(k)] for name in prompt_ids]
