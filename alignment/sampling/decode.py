"""The decode loop: one batch of sequences from prompt to last token."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from alignment.sampling.cache import new_cache
from alignment.sampling.draw import draw
from alignment.sampling.noise import Race
from alignment.sampling.referee import Referee
from alignment.sampling.settings import SamplingSettings

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


@dataclass
class _State:
    """What the sequences still in the batch carry from step to step; all share the row order."""

    rows: torch.Tensor  # [alive] index into the batch
    keys: torch.Tensor  # [alive, steps, 2]
    positions: torch.Tensor  # [alive, 1] position of the token that is fed next
    mask: torch.Tensor | None  # [alive, 1, 1, room] additive, or [alive, room] of 0/1, or none
    going: torch.Tensor  # [alive] not finished yet

    def select(self, index: torch.Tensor) -> _State:
        mask = None if self.mask is None else self.mask[index]
        return _State(
            self.rows[index], self.keys[index], self.positions[index], mask, self.going[index]
        )


def decode(
    model: Any,
    rows: Sequence[Row],
    keys: torch.Tensor,
    settings: SamplingSettings,
    ended: Ended,
    race: Race,
    referee: Referee | None,
) -> None:
    """Fill `tokens`, `logprobs` and `finished` of every row. Call under `torch.inference_mode`.

    Args:
        rows: sequences; those with the same prompt list stand side by side and share a prefill.
        keys: int32 [rows, max_new_tokens, 2] from `noise.step_keys`, on the model's device.
    """
    device = keys.device
    steps = settings.max_new_tokens
    state, logits, cache = _prefill(model, rows, keys, steps)
    length = cache.get_seq_length()
    tokens_out = torch.zeros((len(rows), steps), dtype=torch.long, device=device)
    logprobs_out = torch.zeros((len(rows), steps), dtype=torch.float32, device=device)
    lengths = torch.full((len(rows),), steps, device=device)
    stopped = torch.zeros(len(rows), dtype=torch.bool, device=device)
    for step in range(steps):
        slack = referee.slack if referee else None
        seen = logits.clone() if referee else logits
        drawn = draw(logits, state.keys[:, step], race, settings, slack)
        if referee is not None and drawn.close is not None:
            for row in torch.nonzero(drawn.close & state.going).flatten().tolist():
                index = int(state.rows[row])
                ids = rows[index].prompt + tokens_out[index, :step].tolist()
                token, logprob = referee.decide(ids, state.keys[row, step], seen[row])
                drawn.tokens[row] = token
                drawn.logprobs[row] = logprob
        tokens_out[state.rows, step] = drawn.tokens
        logprobs_out[state.rows, step] = drawn.logprobs
        over = torch.isin(drawn.tokens, ended.ids)
        if settings.stop:
            over |= _stopped_by_text(state, tokens_out[:, : step + 1], ended)
        over &= state.going
        if bool(over.any()):
            lengths[state.rows[over]] = step + 1
            stopped[state.rows[over]] = True
            state.going = state.going & ~over
            left = int(state.going.sum())
            if left == 0:
                break
            if left <= (1 - _LEAVE_SHARE) * len(state.going):
                staying = torch.nonzero(state.going).flatten()
                cache.batch_select_indices(staying)
                drawn.tokens = drawn.tokens[staying]
                state = state.select(staying)
        if step + 1 < steps:
            logits = _forward(model, drawn.tokens[:, None], state, cache, length + step + 1)
            state.positions = state.positions + 1
    _write(rows, tokens_out, logprobs_out, lengths, stopped)


def _prefill(
    model: Any, rows: Sequence[Row], keys: torch.Tensor, steps: int
) -> tuple[_State, torch.Tensor, Any]:
    """Run each distinct prompt once and repeat what it left in the cache for its rows."""
    device = keys.device
    prompts: list[list[int]] = []
    owner: list[int] = []
    for index, row in enumerate(rows):
        if index == 0 or row.prompt_index != rows[index - 1].prompt_index:
            prompts.append(row.prompt)
        owner.append(len(prompts) - 1)
    longest = max(len(prompt) for prompt in prompts)
    # Left padding: every sequence's next token goes into the same slot of the cache.
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device=device)
    present = torch.tensor(
        [[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=device
    )
    cache, full = new_cache(model.config, longest + steps)
    padded = bool((present == 0).any())
    logits = model(
        input_ids=ids,
        attention_mask=present if padded else None,
        position_ids=(present.cumsum(-1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        **_last_only(model),
    ).logits[:, -1]
    repeat = torch.tensor(owner, device=device)
    cache.batch_select_indices(repeat)
    mask = None
    if padded:
        room = torch.nn.functional.pad(present, (0, steps), value=1)
        if full:
            # Ready-made additive masks spare transformers' mask building at every token.
            lowest = torch.finfo(logits.dtype).min
            mask = ((1 - room).to(logits.dtype) * lowest)[repeat][:, None, None, :]
        else:
            mask = room[repeat]
    state = _State(
        rows=torch.arange(len(rows), device=device),
        keys=keys,
        positions=present.sum(-1, keepdim=True)[repeat],
        mask=mask,
        going=torch.ones(len(rows), dtype=torch.bool, device=device),
    )
    return state, logits[repeat], cache


def _forward(
    model: Any, tokens: torch.Tensor, state: _State, cache: Any, length: int
) -> torch.Tensor:
    """Logits [alive, vocabulary] after feeding one token a row; the cache then holds `length`."""
    mask = state.mask
    if mask is not None:
        mask = mask[..., :length]
    return model(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=state.positions,
        past_key_values=cache,
        use_cache=True,
        **_last_only(model),
    ).logits[:, -1]


def _last_only(model: Any) -> dict[str, int]:
    """Ask for the last position's logits alone where the model can be asked."""
    takes = "logits_to_keep" in inspect.signature(model.forward).parameters
    return {"logits_to_keep": 1} if takes else {}


def _stopped_by_text(state: _State, tokens: torch.Tensor, ended: Ended) -> torch.Tensor:
    found = torch.zeros_like(state.going)
    for row in torch.nonzero(state.going).flatten().tolist():
        found[row] = ended.by_text(tokens[state.rows[row]].tolist())
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
