"""Early stopping: looks at held-out prompts, remembers the best result, decides when to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from alignment.config.ppo import StopConfig
from alignment.models.chat_renderer import Tokens
from alignment.training.ppo.scoring import EpisodeScorer, PromptItem


@dataclass(frozen=True)
class StopSet:
    """Prompts that only early stopping draws, and what scores the answers to them.

    Attributes:
        score: guard models; None if there are none: the training reward judges itself.
        texts: held-out texts whose loss tells whether the policy forgets.
    """

    prompts: Sequence[PromptItem]
    score: EpisodeScorer | None
    texts: Sequence[Tokens] = ()


class EarlyStopping:
    """Remembers the scores of looks and decides when to stop: after `patience` looks without a new
    best, if their mean is no higher than that of as many looks before them.

    The best of many looks owes a part to chance, and a policy that gains steadily may not beat it
    for long; without the second condition the defaults of 0.1 stopped nearly all such runs
    (`python -m tests.benchmarks.early_stopping`, docs/ppo.md).

    Attributes:
        best: highest score so far, after `confirm` was subtracted; None before the first look.
        best_iteration: the iteration of that score.
        kept_iteration: the iteration of the weights to keep so far.
        without_gain: looks since the best.
        recent: the newest scores, those of twice `patience` looks at most.
        losses: losses on the held-out texts, of the first look and of the newest.
    """

    def __init__(self, config: StopConfig):
        self._config = config
        self.best: float | None = None
        self.best_iteration = self.kept_iteration = 0
        self.without_gain = 0
        self.recent: list[float] = []
        self.losses: tuple[float, float] | None = None

    def due(self, iteration: int) -> bool:
        """Whether to look after `iteration` finished iterations."""
        every = self._config.look_every
        return every > 0 and iteration % every == 0

    def observe(
        self, iteration: int, score: float, training: float, loss: float | None = None
    ) -> bool:
        """Record a look; returns whether its weights are those to keep so far: a new best, or with
        `keep: last` any that forgot nothing.

        Args:
            training: the mean training reward of the same answers.
            loss: on the held-out texts, nats a token; None if there are none.
        """
        if loss is not None:
            self.losses = (self.losses[0] if self.losses else loss, loss)
        score -= self._config.confirm * training
        if self._config.patience is not None:
            self.recent = [*self.recent, score][-2 * self._config.patience :]
        is_best = not self.forgets and (self.best is None or score > self.best)
        if is_best:
            self.best, self.best_iteration, self.without_gain = score, iteration, 0
        else:
            self.without_gain += 1
        spares = loss is not None and not self.forgets
        keeps = is_best if self._config.keep == "best" else spares
        if keeps:
            self.kept_iteration = iteration
        return keeps

    def reason(self, kl: float) -> str | None:
        """The reason to stop now, or None."""
        budget, patience = self._config.kl_budget, self._config.patience
        if budget is not None and kl > budget:
            return f"KL {kl:.2f} nats an answer is over the budget of {budget:g}"
        if self.losses is not None and self.forgets:
            first, now = self.losses
            return (
                f"the loss on held-out texts rose from {first:.3f} to {now:.3f} nats a token, by "
                f"more than ppo.stop.forgetting allows ({self._config.forgetting:.1%})"
            )
        if patience is not None and self.without_gain >= patience and not self._rises(patience):
            share = self._config.confirm
            doubt = f", or not {share:g} of the training reward's gain," if share else ""
            return (
                f"no better held-out score{doubt} since iteration {self.best_iteration} "
                f"({self.without_gain} looks), and none on the average of {patience} looks"
            )
        return None

    @property
    def forgets(self) -> bool:
        """Whether the newest look's loss on held-out texts is above what is allowed."""
        most = self._config.forgetting
        return (
            self.losses is not None
            and most is not None
            and (self.losses[1] > (1 + most) * self.losses[0])
        )

    def _rises(self, patience: int) -> bool:
        """Whether the last `patience` looks are better on average than those before them."""
        before, last = self.recent[:-patience], self.recent[-patience:]
        return bool(before) and fmean(last) > fmean(before)

    def state(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_iteration": self.best_iteration,
            "kept_iteration": self.kept_iteration,
            "without_gain": self.without_gain,
            "recent": self.recent,
            "losses": self.losses,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.best = state["best"]
        self.best_iteration = state["best_iteration"]
        self.without_gain = state["without_gain"]
        self.recent = state["recent"]
        self.kept_iteration = state["kept_iteration"]
        self.losses = None if state["losses"] is None else tuple(state["losses"])
