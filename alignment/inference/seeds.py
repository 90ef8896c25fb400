"""A seed for every sample, by name."""

from __future__ import annotations

from collections.abc import Sequence

from alignment.utils.seeds import derive_seed


def sample_seeds(seed: int, prompt_ids: Sequence[str], k: int) -> list[list[int]]:
    """A seed for each (prompt id, k): independent, and the same in any order or subset."""
    return [[derive_seed(seed, name, index) for index in range(k)] for name in prompt_ids]
