"""The decode loop: one batch of sequences from prompt to last token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from alignment.inference.batch_invariance import Referee
from alignment.inference.counter_noise import Race
from alignment.inference.draw import draw
from alignment.inference.types import SamplingSettings
from alignment.models.stepper import Stepper

# Rows leave the cache when at least this share has finished: copying it costs about a step.
_LEAVE_SHARE = 0.1


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


class Ended(Protocol):
    """Which answers end with their last token."""

    ids: torch.Tensor
    """Token ids that end an answer, int64."""

    def by_text(self, tokens: Sequence[int]) -> bool:
        """Whether a stop text is complete; asked only if there are stop texts."""


def decode(
    stepper: Stepper,
    rows: Sequence[Row],
    keys: torch.Tensor,
    settings: SamplingSettings,
    ended: Ended,
    race: Race,
    referee: Referee | None,
) -> None:
    """Fill `tokens`, `logprobs` and `finished` of every row. Call under `torch.inference_mode`.

    Args:
        rows: sequences; those of one prompt stand side by side and share its prefill.
        keys: int32 [rows, max_new_tokens, 2] from `noise.step_keys`, on the model's device.
    """
    device, steps = keys.device, settings.max_new_tokens
    prompts, owner = _distinct(rows)
    logits = stepper.start(prompts, torch.tensor(owner, device=device))
    # What the sequences still in the batch carry: index into `rows`, and whether they go on.
    alive = torch.arange(len(rows), device=device)
    going = torch.ones(len(rows), dtype=torch.bool, device=device)
    tokens_out = torch.zeros((len(rows), steps), dtype=torch.long, device=device)
    logprobs_out = torch.zeros((len(rows), steps), dtype=torch.float32, device=device)
    lengths = torch.full((len(rows),), steps, device=device)
    stopped = torch.zeros(len(rows), dtype=torch.bool, device=device)
    for step in range(steps):
        drawn = draw(logits, keys[:, step], race, settings, referee.slack if referee else None)
        if referee is not None and drawn.close is not None:
            for row in torch.nonzero(drawn.close & going).flatten().tolist():
                index = int(alive[row])
                ids = rows[index].prompt + tokens_out[index, :step].tolist()
                token, logprob = referee.decide(ids, keys[row, step], drawn.scores[row])
                drawn.tokens[row] = token
                drawn.logprobs[row] = logprob
        tokens_out[alive, step] = drawn.tokens
        logprobs_out[alive, step] = drawn.logprobs
        over = torch.isin(drawn.tokens, ended.ids)
        if settings.stop:
            over |= _by_text(tokens_out[alive, : step + 1], going, ended)
        over &= going
        if bool(over.any()):
            lengths[alive[over]] = step + 1
            stopped[alive[over]] = True
            going = going & ~over
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
    _write(rows, tokens_out, logprobs_out, lengths, stopped)


def _distinct(rows: Sequence[Row]) -> tuple[list[list[int]], list[int]]:
    """The prompts of the batch, each once, and for each row the index of its prompt."""
    prompts: list[list[int]] = []
    owner: list[int] = []
    for index, row in enumerate(rows):
        if index == 0 or row.prompt_index != rows[index - 1].prompt_index:
            prompts.append(row.prompt)
        owner.append(len(prompts) - 1)
    return prompts, owner


def _by_text(tokens: torch.Tensor, going: torch.Tensor, ended: Ended) -> torch.Tensor:
    found = torch.zeros_like(going)
    for row in torch.nonzero(going).flatten().tolist():
        found[row] = ended.by_text(tokens[row].tolist())
    return found


def _write(
    rows: Sequence[Row],
    tokens: torch.Tensor,
    logprobs: torch.Tensor,
    lengths: torch.Tensor,
    stopped: torch.Tensor,
) -> None:
    all_tokens, all_logprobs = tokens.tolist(), logprobs.tolist()
    for index, (row, length, over) in enumerate(
        zip(rows, lengths.tolist(), stopped.tolist(), strict=True)
    ):
        row.tokens = all_tokens[index][:length]
        row.logprobs = all_logprobs[index][:length]
        row.finished = over
