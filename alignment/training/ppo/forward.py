"""Log-probabilities, entropies and values of answers, from economical forward passes.

Rows are padded on the right, so causal attention needs neither mask nor position ids. The heads are
applied only to the n answer positions, not to prompts or padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alignment.config.ppo import PPOConfig
from alignment.models.activations import unset_piece
from alignment.models.chat_renderer import Tokens
from alignment.models.padding import micro_batches, pad
from alignment.models.sharding import rounds
from alignment.training.ppo.losses import entropy, token_logprobs
from alignment.training.ppo.roles import LanguageRole, ValueRole
from alignment.utils import distributed
from alignment.utils.threads import Together


@dataclass(frozen=True)
class Packed:
    """Some episodes as one right-padded forward pass; n answer tokens in all, row by row.

    Attributes:
        ids: (b, s) int64.
        row, column: (n,) position that predicts each answer token, which is the one before it.
        targets: (n,) the answer tokens.
        where: numbers of the episodes, in the caller's order.
        place: (n,) column of each token in a (b, t) tensor of answers.
    """

    ids: Tensor
    row: Tensor
    column: Tensor
    targets: Tensor
    where: list[int]
    place: Tensor

    @property
    def episode(self) -> Tensor:
        """(n,) the caller's number of the episode that each token belongs to."""
        return torch.tensor(self.where, device=self.row.device)[self.row]


def pack(episodes: Sequence[Tokens], where: Sequence[int], device: torch.device) -> Packed:
    """One forward pass over `episodes[i] for i in where`."""
    chosen = [episodes[i] for i in where]
    rows, columns, targets, places = [], [], [], []
    for r, tokens in enumerate(chosen):
        count = len(tokens.response)
        rows.append(np.full(count, r))
        columns.append(np.arange(len(tokens.prompt) - 1, len(tokens) - 1))
        targets.append(np.asarray(tokens.response))
        places.append(np.arange(count))

    def tensor(parts: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts).astype(np.int64)).to(device)

    return Packed(
        pad([tokens.ids for tokens in chosen], 0).to(device),
        tensor(rows),
        tensor(columns),
        tensor(targets),
        list(where),
        tensor(places),
    )


def piece_of(config: PPOConfig, role: LanguageRole | ValueRole) -> int:
    """Most tokens of one forward and backward pass."""
    if config.max_tokens_per_micro_batch is not None:
        return config.max_tokens_per_micro_batch
    return unset_piece(role.device.type, role.size)


def pieces(episodes: Sequence[Tokens], where: Sequence[int], limit: int) -> list[list[int]]:
    """Split the episode numbers `where` into micro-batches of similar size (`micro_batches`)."""
    numbers = sorted(where)
    batches = micro_batches([len(episodes[i]) for i in numbers], limit, even=True)
    return [[numbers[i] for i in batch] for batch in batches]


def logprobs(
    role: LanguageRole, packed: Packed, temperature: float, *, with_entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """log π (n,) of the answer tokens at `temperature`, and the entropies (n,) if requested."""
    if not with_entropy:
        places = (packed.ids, packed.row, packed.column, packed.targets)
        return role.logprobs(*places, temperature), None
    logits = role.logits(packed.ids, packed.row, packed.column).float()
    if temperature != 1.0:
        logits = logits / temperature
    return token_logprobs(logits, packed.targets), entropy(logits)


def values(role: ValueRole, packed: Packed) -> Tensor:
    """V (n,) of the states from which the answer tokens were drawn."""
    return role.values(packed.ids, packed.row, packed.column)


@dataclass(frozen=True)
class Pass:
    """A forward pass: its input, and the result (n,) for its answer tokens."""

    packed: Packed
    result: Tensor


def passes(
    role: LanguageRole | ValueRole,
    episodes: Sequence[Tokens],
    *,
    temperature: float,
    limit: int,
    device: torch.device,
    gradient: bool = False,
    together: Together | None = None,
) -> list[Pass]:
    """`logprobs` or `values`, after the kind of role, of this process's share of the episodes.

    Args:
        limit: most tokens of a pass.
        gradient: keep the graphs for a backward pass.
        together: runs the passes in parallel if possible.
    """

    def look(where: list[int]) -> Pass:
        packed = pack(episodes, where, device)
        with torch.set_grad_enabled(gradient):
            if isinstance(role, LanguageRole):
                return Pass(packed, logprobs(role, packed, temperature)[0])
            return Pass(packed, values(role, packed))

    share = distributed.share(len(episodes))
    with role.active():
        own = pieces(episodes, share, limit)
        idle = rounds(role.module, len(own)) - len(own)
        done = list((together or Together()).each(look, own))
        for _ in range(idle):
            look([0])  # other processes have more
        return done


def table(results: Sequence[Pass], episodes: int, width: int, device: torch.device) -> Tensor:
    """The results of all processes' passes: (episodes, width), 0 on padding, no gradient."""
    whole = torch.zeros(episodes, width, device=device)
    for item in results:
        whole[item.packed.episode, item.packed.place] = item.result.detach().float()
    share = distributed.share(episodes)
    return distributed.gather_rows(whole[share.start : share.stop], episodes)
