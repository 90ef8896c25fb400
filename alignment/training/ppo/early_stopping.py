"""Early stopping: evaluates held-out prompts, remembers the best result, decides when to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alignment.config.ppo import StopConfig
from alignment.training.ppo.scoring import Episode, PromptItem

Judge = Callable[[Sequence[Episode]], np.ndarray]


@dataclass(frozen=True)
class Guard:
    """Prompts that are never trained on, and the judge of the answers to them.

    Attributes:
        prompts: held-out prompts.
        judge: gives scores (b,); preferably a reward model that training never sees.
        name: a description for people.
    """

    prompts: Sequence[PromptItem]
    judge: Judge
    name: str = "guard"


class EarlyStopping:
    """Remembers the scores of all looks and decides when to stop.

    Attributes:
        best: highest score so far, after `confirm` was subtracted; None before the first look.
        best_iteration: the iteration of that score.
        without_gain: looks since then.
    """

    def __init__(self, config: StopConfig):
        self._config = config
        self.best: float | None = None
        self.best_iteration = 0
        self.without_gain = 0

    def due(self, iteration: int) -> bool:
        """Whether to look after `iteration` finished iterations."""
        every = self._config.look_every
        return every > 0 and iteration % every == 0

    def observe(self, iteration: int, score: float, training: float) -> bool:
        """Record a look; returns whether it is a new best.

        Args:
            iteration: finished iterations.
            score: the guard's mean score of the answers.
            training: the mean training reward of the same answers.
        """
        score -= self._config.confirm * training
        if self.best is None or score > self.best:
            self.best, self.best_iteration, self.without_gain = score, iteration, 0
            return True
        self.without_gain += 1
        return False

    def reason(self, kl: float) -> str | None:
        """The reason to stop now, or None."""
        budget, patience = self._config.kl_budget, self._config.patience
        if budget is not None and kl > budget:
            return f"KL {kl:.2f} nats an answer is over the budget of {budget:g}"
        if patience is not None and self.without_gain >= patience:
            share = self._config.confirm
            doubt = f", or not {share:g} of the training reward's gain," if share else ""
            return (
                f"no better held-out score{doubt} since iteration {self.best_iteration} "
                f"({self.without_gain} looks)"
            )
        return None

    def state(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_iteration": self.best_iteration,
            "without_gain": self.without_gain,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.best = state["best"]
        self.best_iteration = state["best_iteration"]
        self.without_gain = state["without_gain"]
