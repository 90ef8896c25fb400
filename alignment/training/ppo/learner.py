"""The optimisers of policy and critic, their schedules, and the texts of PPO-ptx."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alignment.config.ppo import PPOConfig
from alignment.models.chat_renderer import Tokens
from alignment.models.optimizer import make_optimizer, make_schedule
from alignment.training.ppo.experience import Experience
from alignment.training.ppo.prompts import endless_passes
from alignment.training.ppo.roles import Roles
from alignment.training.ppo.update import schedule, update_critic, update_policy
from alignment.utils.seeds import derive_seed
from alignment.utils.threads import Together


class Learner:
    """Takes the gradient steps of an iteration.

    Args:
        seed: of the order of episodes and texts.
        ptx: texts for PPO-ptx, read pass after pass, each in a new order.
        together: runs the updates of policy and critic at the same time.

    Attributes:
        optimizers, schedules: of `policy`, and of `critic` if there is one.
    """

    def __init__(
        self,
        roles: Roles,
        config: PPOConfig,
        *,
        seed: int,
        ptx: Sequence[Tokens],
        together: Together,
    ):
        self._roles = roles
        self._config = config
        self._seed = seed
        self._ptx = ptx
        self._together = together
        policy, critic = roles.policy, roles.critic
        self.optimizers = {
            "policy": make_optimizer(policy.parameters, config.learning_rate, config.optimizer)
        }
        if critic is not None:
            rate = config.critic_learning_rate
            self.optimizers["critic"] = make_optimizer(critic.parameters, rate, config.optimizer)
        steps, warmup = config.iterations, config.warmup_iterations
        self.schedules = {
            name: make_schedule(optimizer, steps=steps, warmup=warmup, min_lr_ratio=1.0)
            for name, optimizer in self.optimizers.items()
        }

    def update(self, iteration: int, experience: Experience) -> dict[str, float]:
        """Take the gradient steps of an iteration; returns its figures."""
        config, critic = self._config, self._roles.critic
        seed = derive_seed(self._seed, "minibatches", iteration)
        batches = schedule(len(experience.episodes), config.minibatch, config.epochs, seed)
        rest = (experience, batches, config, self._together)
        jobs: dict[str, Callable[[], dict[str, float]]] = {}
        if iteration >= config.critic_warmup_iterations:
            texts = self._texts(iteration, len(batches)) if config.ptx.coefficient > 0 else None
            jobs["policy"] = lambda: update_policy(
                self._roles.policy, self.optimizers["policy"], *rest, texts
            )
        if config.algorithm == "ppo" and critic is not None:
            jobs["critic"] = lambda: update_critic(critic, self.optimizers["critic"], *rest)
        figures = {"rate/policy": float(self.schedules["policy"].get_last_lr()[0])}
        for role_figures in self._together.run(list(jobs.values())):
            figures.update(role_figures)
        for name in jobs:
            self.schedules[name].step()
        return figures

    def _texts(self, iteration: int, steps: int) -> Callable[[int], list[Tokens]]:
        """A function that gives the texts for each step of an iteration."""
        per_step = max(1, round(self._config.ptx.per_episode * self._config.minibatch))
        first = iteration * steps * per_step

        def texts(step: int) -> list[Tokens]:
            start = first + step * per_step
            places = range(start, start + per_step)
            numbers = endless_passes(len(self._ptx), places, self._seed, "ptx")
            return [self._ptx[number] for number in numbers]

        return texts
