"""Episodes: answers drawn from the policy, with the log-probability of every token taken.

Prompts are computed once and answers side by side, by the engine's own steppers. Finished answers
leave, and no logits outlive their step. Random numbers are one uniform a token, drawn per episode
from the iteration's seed: an answer does not depend on which others are decoded beside it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from alignment.errors import ConfigError, StageError
from alignment.fastpath.cpu_threads import crew
from alignment.fastpath.decoding import LeanStepper
from alignment.fastpath.layers import Lean, why_not
from alignment.models.chat_renderer import Tokens
from alignment.models.stepper import ModelStepper, Stepper
from alignment.utils import distributed
from alignment.utils.seeds import derive_seed

# Rows leave the batch once this share of it is finished: each leaving copies the cache.
_LEAVE = 0.25
# A second thread gains less than its calls cost while each has fewer rows than this.
_ROWS = 64
# On a GPU, asking whether all is done stalls the queue: ask every so many steps.
_ASK_EVERY = 8


@dataclass(frozen=True)
class Answers:
    """What was drawn for each prompt, in the order of the prompts.

    Attributes:
        responses: token ids, EOS included where it was drawn.
        logprobs: (b, t) float32 log π at the sampling temperature, 0 on padding.
        mask: (b, t) bool.
        finished: (b,) bool, ended with EOS.
    """

    responses: list[list[int]]
    logprobs: Tensor
    mask: Tensor
    finished: Tensor

    def tokens(self, prompts: Sequence[Sequence[int]]) -> list[Tokens]:
        """Prompts and answers together."""
        return [Tokens(list(p), r) for p, r in zip(prompts, self.responses, strict=True)]


def draw_uniforms(seed: int, episodes: int, length: int) -> np.ndarray:
    """(episodes, length) float64 in [0, 1): row i depends on (seed, i) alone."""
    rows = []
    for i in range(episodes):
        bits = np.random.Philox(key=derive_seed(seed, "episode", i))
        rows.append(np.random.Generator(bits).random(length))
    return np.stack(rows)


def rollout(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    seed: int,
    max_new_tokens: int,
    temperature: float,
    ends: Collection[int],
    batch_size: int,
) -> Answers:
    """One answer to each prompt (repeat a prompt for more); several processes share the prompts.

    Args:
        model: the policy, dropout off, its weights switched on.
        prompts: token ids, none empty.
        seed: of this iteration.
        ends: ids that end an answer; none makes every answer exactly `max_new_tokens` long.
        batch_size: answers decoded side by side.

    Raises:
        ConfigError: a prompt is empty, or exceeds the model's context with its answer.
        StageError: the policy's probabilities are not finite.
    """
    _check(model, prompts, max_new_tokens)
    device = next(model.parameters()).device
    uniforms = torch.from_numpy(draw_uniforms(seed, len(prompts), max_new_tokens)).to(device)
    tokens = torch.zeros(len(prompts), max_new_tokens, dtype=torch.long, device=device)
    logprobs = torch.zeros(len(prompts), max_new_tokens, device=device)
    lengths = torch.full((len(prompts),), max_new_tokens, device=device)
    finished = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    mine = distributed.share(len(prompts))
    order = sorted(mine, key=lambda i: (-len(prompts[i]), i))
    lean = Lean(model) if why_not(model) is None else None
    stops = torch.tensor(sorted(ends), dtype=torch.long, device=device)

    def work(where: list[int]) -> tuple[Tensor, ...]:
        stepper: Stepper
        if lean is not None:
            stepper = LeanStepper(lean, max_new_tokens)
        else:
            stepper = ModelStepper(model, max_new_tokens)
        return _decode(stepper, [prompts[i] for i in where], uniforms[where], temperature, stops)

    with crew(model) as workers:
        size = min(batch_size, max(_ROWS, -(-len(order) // workers)))
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        with ThreadPoolExecutor(workers) as pool:
            drawn = list(pool.map(work, batches))
    for where, found in zip(batches, drawn, strict=True):
        tokens[where], logprobs[where], lengths[where], finished[where] = found
    part = slice(mine.start, mine.stop)
    tokens, logprobs, lengths, finished = (
        distributed.gather_rows(found[part], len(prompts))
        for found in (tokens, logprobs, lengths, finished)
    )
    if not bool(torch.isfinite(logprobs).all()):
        raise StageError(
            "the policy's probabilities are not finite",
            remedy="lower ppo.learning_rate; the last good checkpoint is kept",
        )
    width = int(lengths.max())
    mask = torch.arange(width, device=device)[None] < lengths[:, None]
    rows = tokens.tolist()
    responses = [row[:length] for row, length in zip(rows, lengths.tolist(), strict=True)]
    kept = torch.where(mask, logprobs[:, :width], torch.zeros_like(logprobs[:, :width]))
    return Answers(responses, kept, mask, finished)


@torch.no_grad()
def _decode(
    stepper: Stepper,
    prompts: Sequence[Sequence[int]],
    uniforms: Tensor,
    temperature: float,
    ends: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens (b, t), log-probabilities (b, t), lengths (b,) and finished (b,) of one batch."""
    device = uniforms.device
    count, length = uniforms.shape
    tokens = torch.zeros(count, length, dtype=torch.long, device=device)
    logprobs = torch.zeros(count, length, device=device)
    lengths = torch.full((count,), length, device=device)
    finished = torch.zeros(count, dtype=torch.bool, device=device)
    rows = torch.arange(count, device=device)
    done = torch.zeros(count, dtype=torch.bool, device=device)
    # Answers to one prompt share its prefill.
    distinct = {
        tuple(prompt): number for number, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))
    }
    owner = torch.tensor([distinct[tuple(prompt)] for prompt in prompts], device=device)
    logits = stepper.start([list(prompt) for prompt in distinct], owner)
    for step in range(length):
        taken, logs = choose(logits.float(), uniforms[rows, step], temperature)
        tokens[rows, step] = taken
        logprobs[rows, step] = logs
        if ends.numel():
            ended = torch.isin(taken, ends) & ~done
            lengths[rows[ended]] = step + 1
            finished[rows[ended]] = True
            done = done | ended
            if device.type == "cpu" or step % _ASK_EVERY == _ASK_EVERY - 1:
                share = float(done.float().mean())
                if share == 1.0:
                    break
                if share >= _LEAVE and step + 1 < length:
                    stay = (~done).nonzero().squeeze(1)
                    stepper.select(stay)
                    rows, taken, done = rows[stay], taken[stay], done[stay]
        if step + 1 < length:
            logits = stepper.step(taken)
    return tokens, logprobs, lengths, finished


def choose(logits: Tensor, uniforms: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """A token for each row by inversion of the cumulative distribution, and its log-probability.

    Args:
        logits: (b, v) float32.
        uniforms: (b,) float64 in [0, 1).

    Returns:
        tokens (b,), log π at `temperature` (b,).
    """
    logs = torch.log_softmax(logits / temperature if temperature != 1.0 else logits, dim=-1)
    # float64: in a vocabulary of 150,000 a float32 sum would drift by more than rare tokens weigh.
    cumulative = logs.exp().double().cumsum(-1)
    edge = (uniforms.double() * cumulative[:, -1]).unsqueeze(-1)
    taken = torch.searchsorted(cumulative, edge, right=True).clamp(max=logits.shape[-1] - 1)
    return taken.squeeze(-1), logs.gather(-1, taken).squeeze(-1)


def _check(model: PreTrainedModel, prompts: Sequence[Sequence[int]], new: int) -> None:
    if not prompts or any(not prompt for prompt in prompts):
        raise ConfigError("PPO needs prompts, and none of them may be empty")
    limit = getattr(model.config, "max_position_embeddings", None)
    longest = max(len(prompt) for prompt in prompts)
    if limit is not None and longest + new > limit:
        raise ConfigError(
            f"a prompt of {longest} tokens and {new} new ones exceed the context of {limit}",
            where="ppo.max_new_tokens",
            remedy="lower ppo.max_new_tokens or set ppo.max_prompt_tokens",
        )
