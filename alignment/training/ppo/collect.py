"""One batch of experience, raw: answers, what every role says of them, and their scores.

Several processes each roll out and look at their share; afterwards all know everything.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignment import distributed
from alignment.config.ppo import PPOConfig
from alignment.models.chat import ChatRenderer, Tokens
from alignment.training.ppo.forward import over_all, piece_of
from alignment.training.ppo.roles import LanguageRole, Roles, ValueRole
from alignment.training.ppo.rollout import Answers, rollout
from alignment.training.ppo.scoring import Episode, PromptItem, Reward, Scores
from alignment.training.ppo.together import together

# Rollout and training forward agree within this, or one more forward pass is taken.
_AGREE = 1e-5


@dataclass(frozen=True)
class Collected:
    """A batch before anything is learned from it.

    Attributes:
        answers: as they were drawn.
        tokens: prompts and answers, one an episode.
        old, reference, values: (b, t) log-probabilities under the policy that spoke and under the
            reference, and the critic's values (0 without one).
        scores: of the answers.
    """

    answers: Answers
    tokens: list[Tokens]
    old: Tensor
    reference: Tensor
    values: Tensor
    scores: Scores


class Collector:
    """Lets the policy answer prompts.

    Attributes:
        exact: whether decoding gives the training forward's log-probabilities; None until seen.
    """

    def __init__(
        self,
        roles: Roles,
        renderer: ChatRenderer,
        config: PPOConfig,
        ends: Collection[int],
    ):
        self._roles = roles
        self._renderer = renderer
        self._config = config
        self._ends = frozenset(ends)
        self.exact: bool | None = None

    @property
    def parallel(self) -> bool:
        """Whether roles may compute at the same time: they share neither modules nor messages."""
        on_cpu = self._roles.policy.device.type == "cpu"
        return on_cpu and not self._config.share_backbone and distributed.size() == 1

    def answer(self, prompts: Sequence[PromptItem], seed: int) -> tuple[Answers, list[Episode]]:
        """One answer to each prompt."""
        config = self._config
        ids = [prompt.ids for prompt in prompts]
        with self._roles.policy.active():
            answers = rollout(
                self._roles.policy.model,
                ids,
                seed=seed,
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
                ends=self._ends,
                batch_size=config.rollout_batch,
            )
        episodes = [
            Episode(prompt, tokens, done, self._renderer)
            for prompt, tokens, done in zip(
                prompts, answers.tokens(ids), answers.finished.tolist(), strict=True
            )
        ]
        return answers, episodes

    def collect(self, prompts: Sequence[PromptItem], seed: int, reward: Reward) -> Collected:
        """Answers to prompts and all there is to know of them."""
        answers, episodes = self.answer(prompts, seed)
        tokens = [episode.tokens for episode in episodes]
        jobs = [
            lambda: self._see(self._roles.reference, tokens, answers),
            lambda: reward.score(episodes, learn=True),
        ]
        critic = self._roles.critic
        if critic is not None:
            jobs.append(lambda: self._see(critic, tokens, answers))
        reference, scores, *rest = together(jobs, parallel=self.parallel)
        old = self._old(tokens, answers)
        values = rest[0] if rest else torch.zeros_like(old)
        return Collected(answers, tokens, old, reference, values, scores)

    def _see(
        self, role: LanguageRole | ValueRole, tokens: Sequence[Tokens], answers: Answers
    ) -> Tensor:
        device = self._roles.policy.device
        return over_all(
            role,
            tokens,
            answers.mask.shape[1],
            temperature=self._config.temperature,
            limit=piece_of(self._config, device),
            device=device,
        )

    def _old(self, tokens: Sequence[Tokens], answers: Answers) -> Tensor:
        """Log-probabilities under the policy that spoke, as the training forward would give them.

        Decoding with a cache and one whole forward pass round differently. In float32 the
        difference is far below any ratio that matters; in bfloat16 it is not.
        """
        wish, policy = self._config.old_logprobs, self._roles.policy
        if wish == "auto":
            if next(policy.model.parameters()).dtype != torch.float32:
                wish = "forward"
            elif self.exact is None:
                forward = self._see(policy, tokens, answers)
                self.exact = float((forward - answers.logprobs).abs().max()) <= _AGREE
                return answers.logprobs if self.exact else forward
            else:
                wish = "rollout" if self.exact else "forward"
        return answers.logprobs if wish == "rollout" else self._see(policy, tokens, answers)
