"""The order of prompts, a function of seed and iteration, so that resuming needs no state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignment.errors import ConfigError
from alignment.training.ppo.scoring import PromptItem
from alignment.utils.seeds import derive_seed


def endless_passes(count: int, places: range, *seed: object) -> list[int]:
    """Which of `count` items stand at these places of endless passes, each in a new order."""
    orders: dict[int, np.ndarray] = {}
    for turn in {place // count for place in places}:
        orders[turn] = np.random.default_rng(derive_seed(*seed, turn)).permutation(count)
    return [int(orders[place // count][place % count]) for place in places]


class PromptStream:
    """Endless passes over the prompts, each in a new order without repetition.

    Args:
        safety_share: share of safety prompts in each iteration; None keeps the pool's mix.

    Raises:
        ConfigError: there are no prompts, or none of a kind that the share needs.
    """

    def __init__(
        self,
        prompts: Sequence[PromptItem],
        per_iteration: int,
        *,
        seed: int,
        safety_share: float | None = None,
    ):
        self._seed = seed
        if safety_share is None:
            self._pools = [(list(prompts), per_iteration)]
        else:
            safety = round(per_iteration * safety_share)
            tagged = [prompt for prompt in prompts if prompt.is_safety]
            others = [prompt for prompt in prompts if not prompt.is_safety]
            self._pools = [(tagged, safety), (others, per_iteration - safety)]
        if any(count and not pool for pool, count in self._pools):
            raise ConfigError(
                "there are no prompts of the kind PPO needs",
                where="ppo.safety_share",
                remedy="change ppo.safety_share, or add prompts of that domain",
            )

    def take(self, iteration: int) -> list[PromptItem]:
        """The prompts of an iteration (0, 1, …)."""
        prompts = []
        for number, (pool, count) in enumerate(self._pools):
            places = range(iteration * count, (iteration + 1) * count)
            seed = (self._seed, "prompts", number)
            prompts += [pool[i] for i in endless_passes(len(pool), places, *seed)]
        return prompts
