"""The PPO loop: roll out, score, estimate advantages, update; checkpoint, watch, stop.

One iteration samples `episodes` answers, scores them once, and takes one gradient step for each
mini-batch (times `epochs`) for policy and critic. Everything random is derived from (seed,
iteration), so a checkpoint after any iteration goes on to the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignment.config.ppo import PPOConfig
from alignment.errors import ConfigError
from alignment.models.chat import ChatRenderer, Tokens
from alignment.progress import Progress, SilentProgress
from alignment.seeds import derive_seed
from alignment.series import Series
from alignment.training import checkpoint
from alignment.training.ppo.advantages import (
    explained_variance,
    generalised_advantages,
    leave_one_out,
)
from alignment.training.ppo.average import average, put, snapshot
from alignment.training.ppo.forward import over_all
from alignment.training.ppo.guard import Guard, Watch
from alignment.training.ppo.health import Verdict, verdicts
from alignment.training.ppo.kl import AdaptiveKL, FixedKL, kl_per_token
from alignment.training.ppo.prompts import PromptStream
from alignment.training.ppo.rewards import RunningMoments, place, shape_scores
from alignment.training.ppo.roles import Roles
from alignment.training.ppo.rollout import Answers, rollout
from alignment.training.ppo.scoring import Episode, PromptItem, Reward, Scores
from alignment.training.ppo.together import together
from alignment.training.ppo.update import (
    Experience,
    make_optimizer,
    piece_of,
    schedule,
    update_critic,
    update_policy,
)
from alignment.training.ppo.whitening import masked_mean, masked_variance, whiten

# Rollout and training forward agree within this, or one more forward pass is taken.
_AGREE = 1e-5


@dataclass
class Outcome:
    """What training came to.

    Attributes:
        iterations: done, in all.
        stopped: why it ended early, None where it ran its length.
        kept: iteration whose weights the policy now has.
        history: figures of every iteration.
        verdicts: see `health`.
    """

    iterations: int
    stopped: str | None
    kept: int
    history: list[dict[str, float]]
    verdicts: list[Verdict]


@dataclass
class _Moving:
    """What changes from iteration to iteration beside weights and optimisers."""

    iteration: int = 0
    stopped: str | None = None
    rollout_exact: bool | None = None
    history: list[dict[str, float]] = field(default_factory=list)


class PPOTrainer:
    """PPO, or RLOO where the config says so.

    Args:
        roles: policy, reference and critic (`roles.full_copies` or `adapters.shared_backbone`);
            trained in place.
        renderer: of the policy's tokenizer.
        prompts: the pool to learn on.
        reward: what to climb.
        config: see `PPOConfig`.
        seed: every random stream is derived from it.
        guard: held-out prompts and their judge, for early stopping.
        ptx: texts for PPO-ptx (`ppo.ptx.coefficient` > 0).
        ends: ids that end an answer; the renderer's EOS and the model's own without.
        checkpoints: directory for exact resume; None keeps none.
        series: where curves go.

    Raises:
        ConfigError: the config asks for something that was not given.
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
        guard: Guard | None = None,
        ptx: Sequence[Tokens] | None = None,
        ends: Collection[int] | None = None,
        checkpoints: Path | None = None,
        series: Series | None = None,
        progress: Progress | None = None,
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
        self.guard = guard
        self.ends = frozenset(_ends(roles.policy.model, renderer) if ends is None else ends)
        self._ptx = list(ptx or [])
        self._checkpoints = checkpoints
        self._series = series
        self._progress: Progress = progress or SilentProgress()
        self._stream = PromptStream(
            prompts,
            config.episodes // config.samples_per_prompt,
            seed=seed,
            safety_share=config.safety_share,
        )
        self._optimizers = {
            "policy": make_optimizer(roles.policy.parameters, config.learning_rate, config)
        }
        if roles.critic is not None:
            self._optimizers["critic"] = make_optimizer(
                roles.critic.parameters, config.critic_learning_rate, config
            )
        self.kl: FixedKL = FixedKL(config.kl.coefficient)
        if config.kl.adaptive:
            self.kl = AdaptiveKL(config.kl.coefficient, config.kl.target, config.kl.horizon)
        self._moments = RunningMoments()
        self._watch = Watch(config.stop)
        self._average = snapshot(self._speaking) if config.ema is not None else None
        self._best: dict[str, Tensor] | None = None
        self._now = _Moving()

    @property
    def _speaking(self) -> torch.nn.Module:
        return self.roles.modules["policy"]

    @property
    def _device(self) -> torch.device:
        return self.roles.policy.device

    def train(self) -> Outcome:
        """Run to the end, going on from the newest checkpoint if there is one.

        Raises:
            StageError: something is not finite; the last good checkpoint is kept.
        """
        self._resume()
        now, config = self._now, self.config
        self._progress.begin("PPO" if config.algorithm == "ppo" else "RLOO", config.iterations)
        self._progress.advance(now.iteration)
        if now.iteration == 0 and self.guard is not None and config.stop.guard_every > 0:
            now.history.append(self._look(0))
            self._log(0, now.history[-1])
        while now.iteration < config.iterations and now.stopped is None:
            figures = self.iterate(now.iteration)
            now.iteration += 1
            if self.guard is not None and self._watch.due(now.iteration):
                figures.update(self._look(now.iteration))
            now.history.append(figures)
            self._log(now.iteration, figures)
            now.stopped = self._watch.reason(figures["kl/reference"])
            if now.iteration % config.checkpoint_every == 0 or now.stopped is not None:
                self._save()
            self._progress.advance(
                1,
                score=figures["score/mean"],
                kl=figures["kl/reference"],
                tokens=figures["answer/tokens"],
            )
        if now.stopped is not None:
            self._progress.say(f"PPO stopped after {now.iteration} iterations: {now.stopped}")
        kept = self._settle()
        found = verdicts(now.history, max_new_tokens=config.max_new_tokens)
        return Outcome(now.iteration, now.stopped, kept, now.history, found)

    def iterate(self, iteration: int) -> dict[str, float]:
        """One round of rollout and update; returns its figures."""
        config = self.config
        prompts = [
            prompt
            for prompt in self._stream.take(iteration)
            for _ in range(config.samples_per_prompt)
        ]
        answers, episodes = self._roll_out(prompts, derive_seed(self.seed, "rollout", iteration))
        tokens = [episode.tokens for episode in episodes]
        width = answers.mask.shape[1]
        critic = self.roles.critic

        def see(role: Any) -> Tensor:
            return over_all(
                role,
                tokens,
                width,
                temperature=config.temperature,
                limit=piece_of(config, self._device),
                device=self._device,
            )

        jobs = [
            lambda: see(self.roles.reference),
            lambda: self.reward.score(episodes, learn=True),
        ]
        if critic is not None:
            jobs.append(lambda: see(critic))
        reference, scores, *rest = together(jobs, parallel=self._parallel)
        old = self._old_logprobs(answers, see)
        values = rest[0] if rest else torch.zeros_like(old)
        experience, figures = self._judge(answers, tokens, old, reference, values, scores)
        figures.update(self._learn(iteration, experience))
        self.kl.update(figures["kl/reference"], len(episodes))
        if self._average is not None and config.ema is not None:
            average(self._average, self._speaking, config.ema)
        return figures

    @property
    def _parallel(self) -> bool:
        return self._device.type == "cpu" and not self.config.share_backbone

    def _roll_out(self, prompts: Sequence[PromptItem], seed: int) -> tuple[Answers, list[Episode]]:
        config = self.config
        with self.roles.policy.active():
            answers = rollout(
                self.roles.policy.model,
                [prompt.ids for prompt in prompts],
                seed=seed,
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
                ends=self.ends,
                batch_size=config.rollout_batch,
            )
        finished = answers.finished.tolist()
        tokens = answers.tokens([prompt.ids for prompt in prompts])
        episodes = [
            Episode(prompt, one, done, self.renderer)
            for prompt, one, done in zip(prompts, tokens, finished, strict=True)
        ]
        return answers, episodes

    def _old_logprobs(self, answers: Answers, see: Any) -> Tensor:
        """Log-probabilities under the policy that spoke, as the training forward would give them.

        Decoding with a cache and one whole forward pass round differently. In float32 the
        difference is far below any ratio that matters; in bfloat16 it is not.
        """
        wish = self.config.old_logprobs
        if wish == "auto":
            if next(self.roles.policy.model.parameters()).dtype != torch.float32:
                wish = "forward"
            elif self._now.rollout_exact is None:
                forward = see(self.roles.policy)
                gap = float((forward - answers.logprobs).abs().max())
                self._now.rollout_exact = gap <= _AGREE
                return answers.logprobs if self._now.rollout_exact else forward
            else:
                wish = "rollout" if self._now.rollout_exact else "forward"
        return answers.logprobs if wish == "rollout" else see(self.roles.policy)

    def _judge(
        self,
        answers: Answers,
        tokens: list[Tokens],
        old: Tensor,
        reference: Tensor,
        values: Tensor,
        scores: Scores,
    ) -> tuple[Experience, dict[str, float]]:
        """Rewards, advantages and returns of a batch, and what there is to say of it."""
        config, mask = self.config, answers.mask
        lengths = mask.sum(1)
        kl = kl_per_token(old, reference, config.kl.estimator) * mask
        shaped = shape_scores(
            self._normalised(torch.from_numpy(scores.total).to(old.device, torch.float32)),
            lengths,
            answers.finished,
            missing_eos_penalty=config.reward.missing_eos_penalty,
            length_penalty=config.reward.length_penalty,
        )
        rewards = place(shaped, kl, mask, coefficient=self.kl.coefficient)
        totals = rewards.sum(1)
        figures = _describe(answers, old, reference, scores, totals)
        figures["kl/coefficient"] = self.kl.coefficient
        if config.reward.whiten:
            rewards = whiten(rewards, mask, shift_mean=False)
        if config.algorithm == "ppo":
            advantages, returns = generalised_advantages(
                rewards, values, mask, gamma=config.gamma, lam=config.lam
            )
            figures["critic/explained_variance"] = float(explained_variance(values, returns, mask))
            figures["critic/value"] = float(masked_mean(values, mask))
            figures["critic/return"] = float(masked_mean(returns, mask))
        else:
            each = leave_one_out(rewards.sum(1), config.samples_per_prompt)
            advantages, returns = each[:, None] * mask, torch.zeros_like(rewards)
        figures["advantage/mean"] = float(masked_mean(advantages, mask))
        figures["advantage/deviation"] = float(masked_variance(advantages, mask).sqrt())
        if config.whiten_advantages:
            advantages = whiten(advantages, mask, shift_mean=True)
        return Experience(tokens, old, advantages, values, returns), figures

    def _normalised(self, scores: Tensor) -> Tensor:
        shaping = self.config.reward
        if shaping.normalise == "batch":
            scores = (scores - scores.mean()) / scores.std(unbiased=False).clamp(min=1e-8)
        elif shaping.normalise == "running":
            self._moments.update(scores)
            scores = self._moments.normalise(scores)
        return scores if shaping.clip is None else scores.clamp(-shaping.clip, shaping.clip)

    def _learn(self, iteration: int, experience: Experience) -> dict[str, float]:
        """The gradient steps of an iteration."""
        config = self.config
        share = _warm(iteration, config.warmup_iterations)
        seed = derive_seed(self.seed, "minibatches", iteration)
        batches = schedule(len(experience.episodes), config.minibatch, config.epochs, seed)
        jobs = []
        figures = {"rate/policy": config.learning_rate * share}
        if iteration >= config.critic_warmup_iterations:
            _set_rate(self._optimizers["policy"], figures["rate/policy"])
            jobs.append(
                lambda: update_policy(
                    self.roles.policy,
                    self._optimizers["policy"],
                    experience,
                    batches,
                    config,
                    self._ptx_of(iteration, batches) if config.ptx.coefficient > 0 else None,
                )
            )
        critic = self.roles.critic
        if config.algorithm == "ppo" and critic is not None:
            _set_rate(self._optimizers["critic"], config.critic_learning_rate * share)
            jobs.append(
                lambda: update_critic(
                    critic, self._optimizers["critic"], experience, batches, config
                )
            )
        for found in together(jobs, parallel=self._parallel):
            figures.update(found)
        return figures

    def _ptx_of(self, iteration: int, batches: list[np.ndarray]) -> Any:
        """Texts for each step: a stream of its own through all texts, pass after pass."""
        per_step = max(1, round(self.config.ptx.per_episode * self.config.minibatch))
        first = iteration * len(batches) * per_step

        def texts(step: int) -> list[Tokens]:
            found = []
            for number in range(first + step * per_step, first + (step + 1) * per_step):
                turn, index = divmod(number, len(self._ptx))
                seed = derive_seed(self.seed, "ptx", turn)
                found.append(self._ptx[_permutation(seed, len(self._ptx))[index]])
            return found

        return texts

    def _look(self, iteration: int) -> dict[str, float]:
        """Answer the held-out prompts, always with the same random numbers, and judge."""
        assert self.guard is not None
        answers, episodes = self._roll_out(self.guard.prompts, derive_seed(self.seed, "guard"))
        judged = np.asarray(self.guard.judge(episodes), dtype=np.float64)
        proxy = self.reward.score(episodes, learn=False).parts["combined"]
        score = float(judged.mean())
        if self._watch.look(iteration, score) and self.config.stop.keep == "best":
            self._best = self._weights()
        return {
            "guard/score": score,
            "guard/error": float(judged.std() / math.sqrt(len(judged))),
            "guard/training_reward": float(proxy.mean()),
            "guard/tokens": float(answers.mask.sum() / len(episodes)),
        }

    def _weights(self) -> dict[str, Tensor]:
        """What would be saved now: the average where one is kept, else the weights."""
        if self._average is None:
            return snapshot(self._speaking)
        return {name: value.clone() for name, value in self._average.items()}

    def _settle(self) -> int:
        """Put the weights to keep into the policy; returns the iteration they are of."""
        if self._best is not None:
            put(self._speaking, self._best)
            return self._watch.best_iteration
        if self._average is not None:
            put(self._speaking, self._average)
        return self._now.iteration

    def _log(self, step: int, figures: dict[str, float]) -> None:
        if self._series is not None:
            self._series.log(step, **figures)

    def _state(self) -> checkpoint.TrainingState:
        tensors = {f"average/{k}": v for k, v in (self._average or {}).items()}
        tensors |= {f"best/{k}": v for k, v in (self._best or {}).items()}
        now = self._now
        extra = {
            "stopped": now.stopped,
            "rollout_exact": now.rollout_exact,
            "history": now.history,
            "kl": self.kl.state(),
            "moments": self._moments.state(),
            "watch": self._watch.state(),
            "reward": self.reward.state(),
        }
        return checkpoint.TrainingState(
            self.roles.modules, self._optimizers, tensors=tensors, extra=extra
        )

    def _save(self) -> None:
        if self._checkpoints is not None:
            checkpoint.save(self._checkpoints, self._now.iteration, self._state())

    def _resume(self) -> None:
        directory = self._checkpoints
        if directory is None or checkpoint.latest(directory) is None:
            # A killed run may have written curves before its first checkpoint.
            if self._series is not None and self._now.iteration == 0:
                self._series.truncate(-1)
            return
        state = self._state()
        now = self._now
        now.iteration = checkpoint.load(directory, state)
        extra = state.extra
        now.stopped, now.rollout_exact = extra["stopped"], extra["rollout_exact"]
        now.history = extra["history"]
        self.kl.restore(extra["kl"])
        self._moments.restore(extra["moments"])
        self._watch.restore(extra["watch"])
        self.reward.restore(extra["reward"])
        groups: dict[str, dict[str, Tensor]] = {"average": {}, "best": {}}
        for key, value in state.tensors.items():
            group, name = key.split("/", 1)
            groups[group][name] = value.to(self._device)
        self._average = groups["average"] or None
        self._best = groups["best"] or None
        self._progress.say(f"PPO goes on after iteration {now.iteration}")
        if self._series is not None:
            # The curves may have been lost with the output directory: write them anew.
            self._series.truncate(-1)
            looked = "score/mean" not in now.history[0]
            for number, figures in enumerate(now.history):
                self._series.log(number if looked else number + 1, **figures)


def _ends(model: Any, renderer: ChatRenderer) -> set[int]:
    more = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return {renderer.eos, *([more] if isinstance(more, int) else (more or []))}


def _warm(iteration: int, warmup: int) -> float:
    """Share of the full rate: from a tenth up to one over the warm-up, then constant."""
    return 1.0 if iteration >= warmup else 0.1 + 0.9 * iteration / warmup


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _permutation(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(size)


def _describe(
    answers: Answers, old: Tensor, reference: Tensor, scores: Scores, totals: Tensor
) -> dict[str, float]:
    """Figures of a batch before anything is learned from it."""
    mask = answers.mask
    lengths = mask.sum(1).float()
    combined = scores.parts["combined"]
    figures = {
        "score/mean": float(combined.mean()),
        "score/deviation": float(combined.std()),
        "reward/total": float(totals.mean()),
        "kl/reference": float(((old - reference) * mask).sum(1).mean()),
        "kl/token": float(masked_mean(old - reference, mask)),
        "kl/k3": float((kl_per_token(old, reference, "k3") * mask).sum(1).mean()),
        "policy/entropy": float(-masked_mean(old, mask)),
        "reference/perplexity": math.exp(min(float(-masked_mean(reference, mask)), 50.0)),
        "answer/tokens": float(lengths.mean()),
        "answer/tokens_p95": float(torch.quantile(lengths, 0.95)),
        "answer/cut_share": float((~answers.finished).float().mean()),
        **scores.figures,
    }
    for name, values in scores.parts.items():
        if name != "combined":
            figures[f"score/{name}"] = float(values.mean())
    return figures
