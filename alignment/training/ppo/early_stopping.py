"""Early stopping: looks at held-out prompts, the best of them, and when to end."""

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
    """Prompts that are never trained on, and who judges the answers to them.

    Attributes:
        prompts: held-out prompts.
        judge: scores (b,); best a reward model that training never sees.
        name: what it is, for people.
    """

    prompts: Sequence[PromptItem]
    judge: Judge
    name: str = "guard"


class EarlyStopping:
    """Remembers the looks and decides when to end.

    Attributes:
        best: highest score so far, less what `confirm` takes off; None before the first look.
        best_iteration: when it was reached.
    """

    def __init__(self, config: StopConfig):
        self._config = config
        self.best: float | None = None
        self.best_iteration = 0
        self.without_gain = 0

    def due(self, iteration: int) -> bool:
        """Whether to look after so many finished iterations."""
        every = self._config.look_every
        return every > 0 and iteration % every == 0

    def observe(self, iteration: int, score: float, training: float) -> bool:
        """Take in a look; True where it is a new best.

        Args:
            score: the guard's.
            training: the training reward of the same answers.
        """
        score -= self._config.confirm * training
        if self.best is None or score > self.best:
            self.best, self.best_iteration, self.without_gain = score, iteration, 0
            return True
        self.without_gain += 1
        return False

    def reason(self, kl: float) -> str | None:
        """Why to stop now, or None."""
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
