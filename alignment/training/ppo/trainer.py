"""The PPO loop: roll out, score, estimate advantages, update; with checkpoints and early stopping.

One iteration samples `episodes` answers, scores them once, and takes one gradient step per
mini-batch (times `epochs`) for policy and critic. All randomness is derived from (seed, iteration),
so training resumed from any checkpoint gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alignment.config.ppo import PPOConfig
from alignment.errors import ConfigError
from alignment.inference.live import LiveEngine
from alignment.models.chat_renderer import ChatRenderer, Tokens
from alignment.models.sharding import compute_format
from alignment.rewards.cut_answers import floored
from alignment.training.ppo.collect import Collector
from alignment.training.ppo.early_stopping import EarlyStopping, StopSet
from alignment.training.ppo.experience import compute_advantages
from alignment.training.ppo.forward import passes, piece_of, table
from alignment.training.ppo.health import Verdict, verdicts
from alignment.training.ppo.kl import KLCoefficient
from alignment.training.ppo.learner import Learner
from alignment.training.ppo.prompts import PromptStream
from alignment.training.ppo.rewards import RunningMoments
from alignment.training.ppo.roles import Roles
from alignment.training.ppo.scoring import Episode, PromptItem, Reward
from alignment.training.ppo.weight_average import average, in_place_of, learning, put, snapshot
from alignment.utils import checkpoint, distributed, graceful_stop
from alignment.utils.finite import stop_if_exploded, stop_if_not_finite
from alignment.utils.metrics_log import Series
from alignment.utils.progress import Progress, SilentProgress
from alignment.utils.seeds import derive_seed


@dataclass
class Outcome:
    """The result of a training.

    Attributes:
        iterations: number of iterations done.
        stopped: why it stopped early; None if it did not.
        kept: the iteration whose weights the policy now has.
        history: figures of every iteration.
    """

    iterations: int
    stopped: str | None
    kept: int
    history: list[dict[str, float]]
    verdicts: list[Verdict]


class PPOTrainer:
    """PPO, or RLOO if configured.

    Args:
        roles: from `roles.full_copies` or `adapters.SharedBackbone`; trained in place.
        seed: all random streams are derived from it.
        stop_set: held-out prompts, for early stopping.
        ptx: texts for PPO-ptx (`ppo.ptx.coefficient` > 0).
        ends: ids that end an answer; None takes the renderer's EOS and the model's own.
        checkpoints: directory for exact resume; None saves none.
        live: a server that draws the answers; None draws them in this process.

    Raises:
        ConfigError: the config needs a critic or texts that were not given.
    """

    def __init__(
        self,
        roles: Roles,
        renderer: ChatRenderer,
        prompts: Sequence[PromptItem],
        reward: Reward,
        config: PPOConfig,
        *,
        seed: int,
        stop_set: StopSet | None = None,
        ptx: Sequence[Tokens] | None = None,
        ends: Collection[int] | None = None,
        checkpoints: Path | None = None,
        series: Series | None = None,
        progress: Progress | None = None,
        live: LiveEngine | None = None,
    ):
        if config.algorithm == "ppo" and roles.critic is None:
            raise ConfigError("algorithm: ppo needs a critic", where="ppo.algorithm")
        if config.ptx.coefficient > 0 and not ptx:
            raise ConfigError(
                "PPO-ptx needs texts and there are none",
                where="ppo.ptx.coefficient",
                remedy="set it to 0, or choose another ppo.ptx.source",
            )
        self.roles = roles
        self.renderer = renderer
        self.reward = reward
        self.config = config
        self.seed = seed
        self.stop_set = stop_set
        self._checkpoints = checkpoints
        self._series = series
        self._progress: Progress = progress or SilentProgress()
        self._stream = PromptStream(
            prompts,
            config.episodes // config.samples_per_prompt,
            seed=seed,
            safety_share=config.safety_share,
        )
        self._collector = Collector(roles, renderer, config, ends, live)
        self._learner = Learner(
            roles, config, seed=seed, ptx=ptx or (), together=self._collector.together
        )
        self.kl = KLCoefficient(config.kl)
        self._moments = RunningMoments()
        self._stopping = EarlyStopping(config.stop)
        # In float32: 16 bits would round the small steps of a slow average away.
        self._average = snapshot(self._speaking, torch.float32) if config.ema is not None else None
        self._best: dict[str, Tensor] | None = None
        self._iteration = 0
        self._stopped: str | None = None
        self._history: list[dict[str, float]] = []

    @property
    def _speaking(self) -> torch.nn.Module:
        return self.roles.modules["policy"]

    def train(self) -> Outcome:
        """Train to the end, resuming from the newest checkpoint if there is one.

        Raises:
            StageError: a score, loss or gradient is not finite, or the KL exploded; the last good
                checkpoint is kept.
        """
        self._resume()
        config = self.config
        self._progress.begin("PPO" if config.algorithm == "ppo" else "RLOO", config.iterations)
        self._progress.advance(self._iteration)
        if self._iteration == 0 and self.stop_set is not None and self._stopping.due(0):
            self._record(self._look(0))
        while self._iteration < config.iterations and self._stopped is None:
            figures = self.iterate(self._iteration)
            self._iteration += 1
            if self.stop_set is not None and self._stopping.due(self._iteration):
                figures.update(self._look(self._iteration))
            self._record(figures)
            self._stopped = self._stopping.reason(figures["kl/reference"])
            due = self._iteration % config.checkpoint_every == 0 or self._stopped is not None
            if due or graceful_stop.stop_requested():
                self._save()
                graceful_stop.stop_if_requested()
            self._progress.advance(
                1,
                score=figures["score/mean"],
                kl=figures["kl/reference"],
                tokens=figures["answer/tokens"],
            )
        if self._stopped is not None:
            self._progress.say(f"PPO stopped after {self._iteration} iterations: {self._stopped}")
        kept_iteration = self._settle()
        health = verdicts(
            self._history,
            max_new_tokens=config.generation.max_new_tokens,
            config=config,
            half=compute_format(self.roles.policy.model) != torch.float32,
            forward=self._collector.forward,
        )
        return Outcome(self._iteration, self._stopped, kept_iteration, self._history, health)

    def iterate(self, iteration: int) -> dict[str, float]:
        """Do one iteration of rollout and update; returns its figures."""
        config = self.config
        prompts = [
            prompt
            for prompt in self._stream.take(iteration)
            for _ in range(config.samples_per_prompt)
        ]
        seed = derive_seed(self.seed, "rollout", iteration)
        batch = self._collector.collect(prompts, seed, self.reward)
        experience, figures = compute_advantages(
            batch, config, coefficient=self.kl.value, moments=self._moments
        )
        stop_if_exploded(
            figures["kl/reference"],
            config.stop.kl_limit,
            f"the KL of iteration {iteration + 1}, in nats an answer,",
            remedy="lower ppo.learning_rate or raise ppo.kl.coefficient",
        )
        figures.update(self._learner.update(iteration, experience))
        self.kl.update(figures["kl/reference"], len(prompts))
        if self._average is not None and config.ema is not None:
            average(self._average, self._speaking, config.ema)
        return figures

    def _look(self, iteration: int) -> dict[str, float]:
        """Score the answers to the held-out prompts of the weights that would be saved now.

        Every look uses the same random numbers.
        """
        assert self.stop_set is not None
        seed = derive_seed(self.seed, "guard")  # an old name: another would draw other answers
        with in_place_of(self._speaking, self._average):
            answers, episodes = self._collector.answer(self.stop_set.prompts, seed)
            loss = self.text_loss()
        proxy = self._worth(self.reward.score(episodes, learn=False).parts["combined"], episodes)
        # What training climbs: an answer pays for its tokens there too.
        proxy -= self.config.reward.length_penalty * answers.mask.sum(1).cpu().numpy()
        judge = self.stop_set.score
        scores = proxy if judge is None else self._worth(judge(episodes), episodes)
        score, training = float(scores.mean()), float(proxy.mean())
        if self._stopping.observe(iteration, score, training, loss):
            self._best = self._weights()
        figures = {} if loss is None else {"look/text_loss": loss}
        return figures | {
            "look/score": score,
            "look/error": float(scores.std() / math.sqrt(len(scores))),
            "look/training_reward": training,
            "look/tokens": float(answers.mask.sum() / len(episodes)),
        }

    def text_loss(self) -> float | None:
        """The policy's loss on the stop set's texts, nats a token; None if there are none.

        Raises:
            StageError: it is not finite.
        """
        if self.stop_set is None or not self.stop_set.texts:
            return None
        texts = self.stop_set.texts
        role = self.roles.policy
        device = role.device
        limit = piece_of(self.config, role)
        found = passes(role, texts, temperature=1.0, limit=limit, device=device)
        longest = max(len(text.response) for text in texts)
        logprobs = table(found, len(texts), longest, device)
        loss = -float(logprobs.sum()) / sum(len(text.response) for text in texts)
        # NaN is above no bound: it would pass for a policy that forgets nothing.
        stop_if_not_finite(
            loss, "the loss on the texts of early stopping", remedy="lower ppo.learning_rate"
        )
        return loss

    def _worth(self, scores: np.ndarray, episodes: Sequence[Episode]) -> np.ndarray:
        """Scores (b,) in which, as in training, no cut answer outbids one that ended."""
        scores = np.asarray(scores, dtype=np.float64)
        if not self.config.reward.missing_eos_penalty:
            return scores
        return floored(scores, np.array([episode.finished for episode in episodes]))

    def _weights(self) -> dict[str, Tensor]:
        """The weights that would be saved now: the average if there is one, else the policy's."""
        if self._average is None:
            return snapshot(self._speaking)
        return {name: value.clone() for name, value in self._average.items()}

    def _settle(self) -> int:
        """Put the weights to keep into the policy; returns their iteration."""
        wanted = self.config.stop.keep == "best" or self._stopping.forgets
        if self._best is not None and wanted:
            put(self._speaking, self._best)
            return self._stopping.kept_iteration
        if self._average is not None:
            put(self._speaking, self._average)
        return self._iteration

    def _record(self, figures: dict[str, float]) -> None:
        self._history.append(figures)
        if self._series is not None:
            self._series.log(self._iteration, **figures)

    def _state(self) -> checkpoint.TrainingState:
        tensors = {f"average/{k}": v for k, v in (self._average or {}).items()}
        tensors |= {f"best/{k}": v for k, v in (self._best or {}).items()}
        extra = {
            "stopped": self._stopped,
            "rollout_exact": self._collector.exact,
            "history": self._history,
            "kl": self.kl.value,
            "moments": self._moments.state(),
            "early_stopping": self._stopping.state(),
            "reward": self.reward.state(),
        }
        return checkpoint.TrainingState(
            self.roles.modules,
            self._learner.optimizers,
            self._learner.schedules,
            tensors=tensors,
            extra=extra,
        )

    def _save(self) -> None:
        if self._checkpoints is not None:
            checkpoint.save(self._checkpoints, self._iteration, self._state())

    def _resume(self) -> None:
        directory = self._checkpoints
        if directory is None or checkpoint.latest(directory) is None:
            # A killed run may have written curves before its first checkpoint.
            if self._series is not None and self._iteration == 0:
                self._series.truncate(-1)
            return
        state = self._state()
        self._iteration = checkpoint.load(directory, state)
        extra = state.extra
        self._stopped, self._collector.exact = extra["stopped"], extra["rollout_exact"]
        self._history = extra["history"]
        self.kl.value = extra["kl"]
        self._moments.restore(extra["moments"])
        self._stopping.restore(extra["early_stopping"])
        self.reward.restore(extra["reward"])
        groups: dict[str, dict[str, Tensor]] = {"average": {}, "best": {}}
        for key, value in state.tensors.items():
            group, name = key.split("/", 1)
            parameter = learning(self._speaking)[name]
            groups[group][name] = distributed.like(parameter, value.to(parameter.device))
        self._average = groups["average"] or None
        self._best = groups["best"] or None
        self._progress.say(f"PPO goes on after iteration {self._iteration}")
        if self._series is not None:
            # The curves may be lost with the output directory, so write them again.
            self._series.truncate(-1)
            looked = "score/mean" not in self._history[0]
            for number, figures in enumerate(self._history):
                self._series.log(number if looked else number + 1, **figures)
