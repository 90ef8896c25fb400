"""The decode loop, which takes one batch of sequences from prompt to last token."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from alignment.inference.batch_invariance import Referee
from alignment.inference.counter_noise import GumbelNoise
from alignment.inference.draw import draw
from alignment.inference.types import SamplingSettings
from alignment.models.stepper import Stepper

# Finished rows leave the cache only once they are this share of it: the copy costs about a step.
_LEAVE_SHARE = 0.1
# On a GPU, reading which rows have finished stalls its queue, so do it every so many steps.
_ASK_EVERY = 8


@dataclass
class Row:
    """One sequence: sample `place` of prompt `prompt_index`."""

    prompt_index: int
    place: int
    prompt: list[int]
    seed: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finished: bool = False


@dataclass(frozen=True)
class Ends:
    """The conditions that end an answer.

    Attributes:
        ids: tokens that end it, int64 on the model's device; may be empty.
        by_text: says whether tokens end with a complete stop text; None without stop texts.
    """

    ids: torch.Tensor
    by_text: Callable[[Sequence[int]], bool] | None = None


@torch.inference_mode()
def decode(
    stepper: Stepper,
    rows: Sequence[Row],
    keys: torch.Tensor,
    settings: SamplingSettings,
    ends: Ends,
    gumbel: GumbelNoise,
    referee: Referee | None = None,
) -> Iterator[torch.Tensor]:
    """Draw a token for every row, step by step, until all rows have ended.

    A row's tokens depend on its prompt, its keys and rounding; with a referee, not on rounding.

    Args:
        rows: the sequences; those with the same prompt share its prefill.
        keys: int32 [rows, max_new_tokens, 2] from `step_keys`, on the model's device.
        referee: decides close draws; None accepts them as the batch computed them.

    Yields:
        tokens [n] of the rows still in the batch, in order; some may come after a row's end. When
        the iterator is exhausted, `tokens`, `logprobs` and `finished` of every row are set.
    """
    device, steps = keys.device, settings.max_new_tokens
    prompts, owner = _distinct(rows)
    logits = stepper.start(prompts, torch.tensor(owner, device=device))
    # For each sequence still in the batch: its index in `rows`, and whether it goes on.
    alive = torch.arange(len(rows), device=device)
    going = torch.ones(len(rows), dtype=torch.bool, device=device)
    tokens = torch.zeros((len(rows), steps), dtype=torch.long, device=device)
    logprobs = torch.zeros((len(rows), steps), dtype=torch.float32, device=device)
    lengths = torch.full((len(rows),), steps, device=device)
    for step in range(steps):
        drawn = draw(logits, keys[:, step], gumbel, settings, referee.slack if referee else None)
        if referee is not None and drawn.close is not None:
            for row in torch.nonzero(drawn.close & going).flatten().tolist():
                index = int(alive[row])
                ids = rows[index].prompt + tokens[index, :step].tolist()
                token, logprob = referee.decide(ids, keys[row, step], drawn.scores[row])
                drawn.tokens[row] = token
                drawn.logprobs[row] = logprob
        tokens[alive, step] = drawn.tokens
        logprobs[alive, step] = drawn.logprobs
        yield drawn.tokens
        over = torch.isin(drawn.tokens, ends.ids)
        if ends.by_text is not None:
            for row in torch.nonzero(going).flatten().tolist():
                over[row] |= ends.by_text(tokens[alive[row], : step + 1].tolist())
        lengths[alive] = torch.where(going & over, step + 1, lengths[alive])
        going = going & ~over
        if device.type == "cpu" or step % _ASK_EVERY == _ASK_EVERY - 1:
            left = int(going.sum())
            if left == 0:
                break
            if left <= (1 - _LEAVE_SHARE) * len(going) and step + 1 < steps:
                staying = torch.nonzero(going).flatten()
                stepper.select(staying)
                drawn.tokens = drawn.tokens[staying]
                alive, going, keys = alive[staying], going[staying], keys[staying]
        if step + 1 < steps:
            logits = stepper.step(drawn.tokens)
    finished = torch.ones(len(rows), dtype=torch.bool, device=device)
    finished[alive[going]] = False
    results = (item.tolist() for item in (tokens, logprobs, lengths, finished))
    for row, row_tokens, row_logprobs, length, over in zip(rows, *results, strict=True):
        row.tokens, row.logprobs = row_tokens[:length], row_logprobs[:length]
        row.finished = over


def _distinct(rows: Sequence[Row]) -> tuple[list[list[int]], list[int]]:
    """The distinct prompts of the batch, and for each row the index of its prompt."""
    numbers: dict[tuple[int, ...], int] = {}
    owner = [numbers.setdefault(tuple(row.prompt), len(numbers)) for row in rows]
    return [list(prompt) for prompt in numbers], owner
