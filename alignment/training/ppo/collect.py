"""Collects a batch: answers, each role's log-probabilities or values of them, and their scores.

Several processes each do their share and then exchange the results.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignment.config.ppo import PPOConfig
from alignment.inference.engine import TransformersEngine
from alignment.inference.live import LiveEngine
from alignment.inference.types import SamplingSettings
from alignment.models.chat_renderer import ChatRenderer, Tokens
from alignment.models.sharding import compute_format, whole
from alignment.training.ppo.forward import Pass, passes, piece_of, table
from alignment.training.ppo.roles import LanguageRole, Roles, ValueRole
from alignment.training.ppo.rollout import LEAST_ROWS, Answers, rollout
from alignment.training.ppo.scoring import Episode, PromptItem, Reward, Scores
from alignment.utils import distributed
from alignment.utils.threads import Together

# If rollout and training forward differ by more, an extra forward pass is needed.
_AGREE = 1e-5


@dataclass(frozen=True)
class Collected:
    """A batch before training on it.

    Attributes:
        answers: the drawn answers.
        tokens: prompt and answer of each episode.
        old, reference, values: (b, t) log-probabilities under the policy that drew the answers and
            under the reference, and the critic's values (0 without a critic).
        scores: of the answers.
        kept: forward passes of `policy` and `critic` with their graphs, for the first gradient
            step; empty if that step has other micro-batches.
    """

    answers: Answers
    tokens: list[Tokens]
    old: Tensor
    reference: Tensor
    values: Tensor
    scores: Scores
    kept: dict[str, list[Pass]]
    gap: Tensor | None = None
    """(b, t) what the trainer's log-probabilities are above those of the server that drew the
    answers, 0 on padding; None if the policy drew them in this process."""


class Collector:
    """Has the policy answer prompts, and the other roles evaluate the answers.

    Args:
        live: draws the answers instead of the policy in this process.

    Attributes:
        exact: whether decoding gives the training forward's log-probabilities; None until measured.
    """

    def __init__(
        self,
        roles: Roles,
        renderer: ChatRenderer,
        config: PPOConfig,
        ends: Collection[int] | None = None,
        live: LiveEngine | None = None,
    ):
        self._roles = roles
        self._live = live
        self._renderer = renderer
        self._config = config
        self._engine = TransformersEngine(
            roles.policy.model, renderer, ends=ends, least_rows=LEAST_ROWS
        )
        # `exact` makes draws independent of the batch, but PPO's batches are always the same.
        self._settings = SamplingSettings(
            max_new_tokens=config.generation.max_new_tokens,
            temperature=config.generation.temperature,
            batch_size=config.generation.generation_batch_size,
            exact=False,
        )
        self.exact: bool | None = None
        self.together = Together(
            apart=roles.policy.fast and config.lora is None and distributed.size() == 1
        )

    @property
    def forward(self) -> bool:
        """Whether the old log-probabilities are those of the training forward."""
        wish = self._config.old_logprobs
        return self._live is not None or wish == "forward" or (wish == "auto" and not self.exact)

    def answer(self, prompts: Sequence[PromptItem], seed: int) -> tuple[Answers, list[Episode]]:
        """One answer to each prompt."""
        ids = [prompt.ids for prompt in prompts]
        policy = self._roles.policy
        drawing = (self._settings, seed, policy.device)
        with policy.active():
            if self._live is not None:
                self._live.publish(policy.write)
                answers = rollout(self._live, ids, *drawing, self._live.share(len(ids)))
            else:
                with whole(policy.model):
                    answers = rollout(self._engine, ids, *drawing)
        episodes = [
            Episode(prompt, tokens, done, self._renderer)
            for prompt, tokens, done in zip(
                prompts, answers.tokens(ids), answers.finished.tolist(), strict=True
            )
        ]
        return answers, episodes

    def collect(self, prompts: Sequence[PromptItem], seed: int, reward: Reward) -> Collected:
        """Draw an answer to each prompt and evaluate it with all roles and the reward."""
        answers, episodes = self.answer(prompts, seed)
        tokens = [episode.tokens for episode in episodes]
        keeps = self._keeps(tokens)
        roles = self._roles

        def score() -> Scores:
            return next(self.together.each(lambda e: reward.score(e, learn=True), [episodes]))

        jobs: list[Callable[[], Any]] = [
            score,
            lambda: self._table(self._see(roles.reference, tokens), answers),
            lambda: self._old(tokens, answers, keeps),
            lambda: [] if roles.critic is None else self._see(roles.critic, tokens, keeps),
        ]
        scores, reference, (old, spoken), valued = self.together.run(jobs)
        values = self._table(valued, answers)
        kept = {"policy": spoken, "critic": valued} if keeps else {}
        gap = None
        if self._live is not None:
            gap = (old.detach() - answers.logprobs) * answers.mask
            self._live.check(float(gap.abs().sum() / answers.mask.sum()))
        return Collected(answers, tokens, old, reference, values, scores, kept, gap)

    def _keeps(self, tokens: Sequence[Tokens]) -> bool:
        """Whether the first gradient step reuses the passes made here.

        It does so only if it needs exactly these passes and no additional memory.
        """
        config = self._config
        whole = config.minibatch >= len(tokens) and config.entropy_coefficient == 0
        size = len(tokens) * max(map(len, tokens))
        fits = size <= piece_of(config, self._roles.policy)
        return self.together.apart and whole and fits

    def _see(
        self, role: LanguageRole | ValueRole, tokens: Sequence[Tokens], gradient: bool = False
    ) -> list[Pass]:
        return passes(
            role,
            tokens,
            temperature=self._config.generation.temperature,
            limit=piece_of(self._config, role),
            device=self._roles.policy.device,
            gradient=gradient,
            together=self.together,
        )

    def _table(self, results: list[Pass], answers: Answers) -> Tensor:
        rows, width = answers.mask.shape
        return table(results, rows, width, self._roles.policy.device)

    def _old(
        self, tokens: Sequence[Tokens], answers: Answers, keeps: bool
    ) -> tuple[Tensor, list[Pass]]:
        """Log-probabilities of the answers under the policy that drew them, and the passes used.

        They are those of the training forward. Decoding with a cache and one full forward pass
        round differently: in float32 the difference does not matter, in bfloat16 it does.
        """
        wish, policy = self._config.old_logprobs, self._roles.policy
        if self._live is not None:
            wish = "forward"
        if wish == "rollout" or (wish == "auto" and self.exact and not keeps):
            return answers.logprobs, []
        results = self._see(policy, tokens, keeps)
        forward = self._table(results, answers)
        if wish == "auto" and not keeps and self.exact is None:
            single = compute_format(policy.model) == torch.float32
            near = float((forward - answers.logprobs).abs().max()) <= _AGREE
            self.exact = single and near
            return answers.logprobs if self.exact else forward, []
        return forward, results
