"""The order of prompts, a function of seed and iteration, so that resuming needs no state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignment.errors import ConfigError
from alignment.training.ppo.scoring import PromptItem
from alignment.utils.seeds import derive_seed


class PromptStream:
    """Endless passes over the prompts, each in a new order without repetition.

    Args:
        prompts: the pool.
        per_iteration: prompts per iteration.
        seed: of the orders.
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
            orders: dict[int, np.ndarray] = {}
            for place in range(iteration * count, (iteration + 1) * count):
                turn, index = divmod(place, len(pool))
                if turn not in orders:
                    seed = derive_seed(self._seed, "prompts", number, turn)
                    orders[turn] = np.random.default_rng(seed).permutation(len(pool))
                prompts.append(pool[orders[turn][index]])
        return prompts
