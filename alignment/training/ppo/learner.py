"""Who learns: the optimisers of policy and critic, their rates, and the side stream of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from alignment.config.ppo import PPOConfig
from alignment.fastpath.task_queue import Together
from alignment.models.chat_renderer import Tokens
from alignment.training.ppo.experience import Experience
from alignment.training.ppo.roles import Roles
from alignment.training.ppo.update import make_optimizer, schedule, update_critic, update_policy
from alignment.utils.seeds import derive_seed


class Learner:
    """Takes the gradient steps of an iteration.

    Args:
        ptx: texts for PPO-ptx, a stream of their own through all of them, pass after pass.
        together: how policy and critic are computed at the same time.

    Attributes:
        optimizers: `policy`, and `critic` where there is one.
    """

    def __init__(
        self,
        roles: Roles,
        config: PPOConfig,
        *,
        seed: int,
        ptx: Sequence[Tokens] = (),
        together: Together | None = None,
    ):
        self._roles = roles
        self._config = config
        self._seed = seed
        self._ptx = list(ptx)
        self._together = together or Together()
        self.optimizers = {
            "policy": make_optimizer(roles.policy.parameters, config.learning_rate, config)
        }
        if roles.critic is not None:
            self.optimizers["critic"] = make_optimizer(
                roles.critic.parameters, config.critic_learning_rate, config
            )

    def learn(self, iteration: int, experience: Experience) -> dict[str, float]:
        """The gradient steps of an iteration; its figures.

        Raises:
            StageError: loss or gradient is not finite; the weights are those of the last good step.
        """
        config, critic = self._config, self._roles.critic
        share = _warm(iteration, config.warmup_iterations)
        seed = derive_seed(self._seed, "minibatches", iteration)
        batches = schedule(len(experience.episodes), config.minibatch, config.epochs, seed)
        jobs = []
        figures = {"rate/policy": config.learning_rate * share}
        if iteration >= config.critic_warmup_iterations:
            _set_rate(self.optimizers["policy"], figures["rate/policy"])
            texts = self._texts(iteration, len(batches)) if config.ptx.coefficient > 0 else None
            jobs.append(
                lambda: update_policy(
                    self._roles.policy,
                    self.optimizers["policy"],
                    experience,
                    batches,
                    config,
                    self._together,
                    texts,
                )
            )
        if config.algorithm == "ppo" and critic is not None:
            _set_rate(self.optimizers["critic"], config.critic_learning_rate * share)
            jobs.append(
                lambda: update_critic(
                    critic,
                    self.optimizers["critic"],
                    experience,
                    batches,
                    config,
                    self._together,
                )
            )
        for found in self._together.run(jobs):
            figures.update(found)
        return figures

    def _texts(self, iteration: int, steps: int) -> Callable[[int], list[Tokens]]:
        """Texts for each step of an iteration."""
        per_step = max(1, round(self._config.ptx.per_episode * self._config.minibatch))
        first = iteration * steps * per_step

        def texts(step: int) -> list[Tokens]:
            found = []
            for number in range(first + step * per_step, first + (step + 1) * per_step):
                turn, index = divmod(number, len(self._ptx))
                order = np.random.default_rng(derive_seed(self._seed, "ptx", turn))
                found.append(self._ptx[order.permutation(len(self._ptx))[index]])
            return found

        return texts


def _warm(iteration: int, warmup: int) -> float:
    """Share of the full rate: from a tenth up to one over the warm-up, then constant."""
    return 1.0 if iteration >= warmup else 0.1 + 0.9 * iteration / warmup


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
